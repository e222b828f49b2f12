"""Choosing one setting for each method of a study before it is compared with the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from fedmtl.errors import ConfigError
from fedmtl.metrics import Metric, mean_ranks
from fedmtl.records.finals import final_mean
from fedmtl.records.schemas import read_table
from fedmtl.records.summary import read_summary

GROUP = "clients"
"""Settings are judged on the examples that the clients hold out, never on the test set."""

_KEYS = ("key", "values", "seeds", "per", "at")


@dataclass(frozen=True)
class Candidates:
    """The values that a key may be given."""

    section: str
    option: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, given: Mapping[str, Any], where: str) -> Self:
        """Check ``key`` and ``values``.

        Raises
        ------
        ConfigError
            If they are not a key and a list of values; names the place.
        """
        section, _, option = str(given["key"]).partition(".")
        if not section or not option:
            raise ConfigError(f"{where}.key = {given['key']!r}: write section.key, such as 'training.learning_rate'")
        if not isinstance(given["values"], list) or len(given["values"]) < 2:
            raise ConfigError(f"{where}.values = {given['values']!r}: a choice needs a list of at least two")
        values = tuple(given["values"])
        if not all(isinstance(value, str | int | float) for value in values) or len(set(values)) < len(values):
            raise ConfigError(f"{where}.values = {given['values']!r}: write different numbers or texts")
        return cls(section, option, values)

    @property
    def key(self) -> str:
        """The option's key in a configuration, ``section.option``."""
        return f"{self.section}.{self.option}"

    def tables(self, value: Any) -> dict[str, dict[str, Any]]:
        """A value, to be laid over a configuration."""
        return {self.section: {self.option: value}}

    def toml(self) -> dict[str, Any]:
        """The choice as a study's file has it."""
        return {"key": self.key, "values": list(self.values)}


@dataclass(frozen=True)
class Tuning:
    """The section ``[tune]`` of a study: which key takes which values, and for whom it is chosen.

    ::

        [tune]
        key = "training.learning_rate"
        values = [0.03, 0.1, 0.3]
        seeds = [100]                        # none of the study's
        per = ["strategy", "partition"]      # a choice for each combination of these axes,
        at = { speed = "1:10" }              # made with these labels on the others
        [tune.instead.FedAdam]               # a label of the first axis for which another key is chosen
        key = "strategy.server_rate"
        values = [0.01, 0.1]

    Of the values, the one with the best mean rank over the tasks is taken; on a tie, the first of the list. What is
    ranked is a task's final metric (:mod:`fedmtl.records.finals`) on the clients' held-out examples, the mean over the
    seeds. A value with which a run diverged comes after all others.
    """

    usual: Candidates
    instead: Mapping[str, Candidates]
    seeds: tuple[int, ...]
    per: tuple[str, ...]
    at: Mapping[str, str]

    @classmethod
    def parse(cls, given: Any, axes: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], where: str) -> Self:
        """Check the section.

        Raises
        ------
        ConfigError
            If a key is missing, unknown or wrong; names it and the remedy.
        """

        def refuse(what: str) -> ConfigError:
            return ConfigError(f"{where}: tune.{what}")

        if not isinstance(given, dict) or set(given) - {"instead"} != set(_KEYS):
            raise ConfigError(f"{where}: [tune] needs the keys {', '.join(_KEYS)}, and may have instead; no others")
        own, per, at = given["seeds"], given["per"], given["at"]
        if not isinstance(own, list) or not own or not all(type(seed) is int and seed >= 0 for seed in own):
            raise refuse(f"seeds = {own!r}: write a list of seeds")
        if both := set(own) & set(seeds):
            raise refuse(
                f"seeds: the study itself has seed {min(both)}, and a choice must not see what it is judged by"
            )
        if not isinstance(per, list) or not isinstance(at, dict) or sorted([*per, *at]) != sorted(axes):
            raise refuse(f"per and tune.at: name each axis in just one of them; axes: {', '.join(axes)}")
        for axis, label in at.items():
            if label not in axes[axis]:
                raise refuse(f"at.{axis} = {label!r} is not a label of that axis; known: {', '.join(axes[axis])}")
        instead = given.get("instead", {})
        compared = next(iter(axes))
        if not isinstance(instead, dict) or (instead and compared not in per):
            raise refuse(f"instead needs tables by label of the axis {compared!r}, which per must name")
        for label, table in instead.items():
            if label not in axes[compared] or not isinstance(table, dict) or set(table) != {"key", "values"}:
                raise refuse(f"instead.{label}: needs a label of the axis {compared!r}, with key and values")
        others = {label: Candidates.parse(table, f"{where}: tune.instead.{label}") for label, table in instead.items()}
        return cls(Candidates.parse(given, f"{where}: tune"), others, tuple(own), tuple(per), at)

    def candidates(self, labels: Mapping[str, str]) -> Candidates:
        """What may be chosen for these labels."""
        compared = next(iter(labels.values()))
        return self.instead.get(compared, self.usual)

    def place(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The labels that a choice depends on."""
        return tuple(labels[axis] for axis in self.per)

    def judged_by(self) -> str:
        """How a value is chosen, in words."""
        seeds = ", ".join(map(str, self.seeds))
        where = "".join(f", {axis} {label}" for axis, label in self.at.items())
        return f"the examples that clients hold out, with seed {seeds}{where}"

    def toml(self) -> dict[str, Any]:
        """The section as it is written."""
        tables = {**self.usual.toml(), "seeds": list(self.seeds), "per": list(self.per), "at": dict(self.at)}
        if self.instead:
            tables["instead"] = {label: candidates.toml() for label, candidates in self.instead.items()}
        return tables


def best_value(directories: Mapping[Any, Sequence[Path]]) -> Any:
    """The value with the best mean rank over the tasks; on a tie, the first.

    Parameters
    ----------
    directories
        For each value its runs, one for each seed; none for a value whose runs failed, which is not chosen.

    Raises
    ------
    ConfigError
        If there is no run, or the clients held out nothing.
    """
    results = {value: [held_out(path) for path in paths] for value, paths in directories.items() if paths}
    if not results:
        raise ConfigError("no run ended")
    metrics = next(iter(results.values()))[0][0]
    scores = {value: np.mean([values for _, values in runs], axis=0).tolist() for value, runs in results.items()}
    ranks = mean_ranks(scores, metrics)
    return min(ranks, key=ranks.__getitem__)


def held_out(directory: Path) -> tuple[list[Metric], list[float]]:
    """Each task's final metric of a finished run on the clients' held-out examples; not a number if it diverged.

    Raises
    ------
    ConfigError
        If the clients held out nothing.
    """
    rows = [row for row in read_table(directory, "evaluations").to_pylist() if row["group"] == GROUP]
    summary = read_summary(directory)
    metrics, means = [], []
    for task in summary["tasks"]:
        mine = [row for row in rows if row["task"] == task["name"]]
        if not mine:
            raise ConfigError("tune: clients hold out nothing to choose by: set data.validation_fraction above 0")
        metrics.append(Metric(task["name"], task["metric"], task["higher_is_better"]))
        mean = final_mean([row["version"] for row in mine], [row["value"] for row in mine])
        means.append(mean if math.isfinite(mean) and not summary.get("diverged") else math.nan)
    return metrics, means


Choices = Mapping[tuple[str, ...], Any]
"""What was chosen, by the labels on the axes `per`."""
