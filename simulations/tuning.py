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
from fedmtl.records.schemas import read_table
from fedmtl.records.summary import LAST_EVALUATIONS, read_summary

GROUP = "clients"
"""Settings are judged on the examples that the clients hold out, never on the test set."""

_KEYS = ("key", "values", "seeds", "per", "at")


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

    Of the values, the one with the best mean rank over the tasks is taken; on a tie, the first of the list. What is
    ranked is a task's metric on the clients' held-out examples, the mean over the last 20 evaluated versions and over
    the seeds.
    """

    section: str
    option: str
    values: tuple[Any, ...]
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

        if not isinstance(given, dict) or set(given) != set(_KEYS):
            raise ConfigError(f"{where}: [tune] needs exactly the keys {', '.join(_KEYS)}")
        section, _, option = str(given["key"]).partition(".")
        if not section or not option:
            raise refuse(f"key = {given['key']!r}: write section.key, such as 'training.learning_rate'")
        values, own, per, at = given["values"], given["seeds"], given["per"], given["at"]
        if not isinstance(values, list) or len(values) < 2:
            raise refuse(f"values = {values!r}: a choice needs a list of at least two")
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
        return cls(section, option, tuple(values), tuple(own), tuple(per), at)

    @property
    def key(self) -> str:
        """``section.option``."""
        return f"{self.section}.{self.option}"

    def place(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The labels that a choice depends on."""
        return tuple(labels[axis] for axis in self.per)

    def tables(self, value: Any) -> dict[str, dict[str, Any]]:
        """The value, to be laid over a configuration."""
        return {self.section: {self.option: value}}

    def judged_by(self) -> str:
        """How a value is chosen, in words."""
        seeds = ", ".join(map(str, self.seeds))
        where = "".join(f", {axis} {label}" for axis, label in self.at.items())
        return f"the examples that clients hold out, with seed {seeds}{where}"

    def toml(self) -> dict[str, Any]:
        """The section as it is written."""
        lists = {"values": list(self.values), "seeds": list(self.seeds), "per": list(self.per)}
        return {"key": self.key, **lists, "at": dict(self.at)}

    def choose(self, directories: Mapping[Any, Sequence[Path]], place: Sequence[str]) -> Any:
        """The best value.

        Parameters
        ----------
        directories
            For each value its runs, one for each seed; none for a value whose runs failed, which is not chosen.
        place
            For whom, to be named in an error.

        Raises
        ------
        ConfigError
            If no run of any value ended.
        """
        results = {str(value): [held_out(path) for path in paths] for value, paths in directories.items() if paths}
        if not results:
            raise ConfigError(f"tune: no run of {', '.join(place)} ended, from which {self.key} could be chosen")
        metrics = next(iter(results.values()))[0][0]
        scores = {name: np.mean([values for _, values in runs], axis=0) for name, runs in results.items()}
        ranks = mean_ranks({name: list(row) for name, row in scores.items()}, metrics)
        return min((value for value in self.values if str(value) in ranks), key=lambda value: ranks[str(value)])


def held_out(directory: Path) -> tuple[list[Metric], list[float]]:
    """Each task's metric of a finished run on the clients' held-out examples, mean over the last evaluated versions.

    Raises
    ------
    ConfigError
        If the clients held out nothing.
    """
    rows = [row for row in read_table(directory, "evaluations").to_pylist() if row["group"] == GROUP]
    metrics, means = [], []
    for task in read_summary(directory)["tasks"]:
        values = [row["value"] for row in rows if row["task"] == task["name"]][-LAST_EVALUATIONS:]
        if not values:
            raise ConfigError("tune: clients hold out nothing to choose by: set data.validation_fraction above 0")
        metrics.append(Metric(task["name"], task["metric"], task["higher_is_better"]))
        mean = float(np.mean(values))
        means.append(mean if math.isfinite(mean) else math.nan)
    return metrics, means


Choices = Mapping[tuple[str, ...], Any]
"""What was chosen, by the labels on the axes `per`."""
