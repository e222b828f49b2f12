"""A study: experiments that differ along named axes, over several seeds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedmtl.config import to_toml
from fedmtl.text import file_name
from simulations.studies.tuning import Choices, Tuning


@dataclass(frozen=True)
class Cell:
    """One experiment of a study.

    Attributes
    ----------
    labels
        Its place on each axis: axis -> label.
    seed
        Its seed.
    tables
        Its configuration.
    """

    labels: Mapping[str, str]
    seed: int
    tables: Mapping[str, Any]

    @property
    def name(self) -> str:
        """A name for its directory."""
        text = "--".join([*self.labels.values(), f"seed{self.seed}"])
        return file_name(text)


@dataclass(frozen=True)
class Study:
    """Axes, seeds and a base: every combination is one experiment.

    ::

        name = "strategies"
        seeds = 5                                  # 0..4, or a list
        [base.stop]                                # any keys of an experiment
        versions = 200
        [axes.strategy.FedQS-SGD.strategy]         # axes.<axis>.<label>.<section>
        name = "fedqs"
        [axes.speed."1:50".devices]
        ratio = 50
        [targets]                                  # for times to target, by task
        digit = 0.8

    ``highlight = ["FedQS-SGD"]`` at the top names labels of the first axis whose curves are drawn beside the best ones;
    it changes no experiment, so it may change in a study that has begun.

    ``baselines = true`` has single-task models trained, too, and experiments compared with them
    (:mod:`simulations.studies.baselines`). It changes no experiment, either.

    A seed of the study is that of a run. ``[base.data] seed = 0`` holds the data and their partition fixed in all of
    them, ``devices.seed`` the fleet and ``model.seed`` the first model; on an axis, each of them varies by itself.

    The first axis is what is compared; tables and plots have a part for each combination of the others. A section
    ``[tune]`` (:class:`simulations.studies.tuning.Tuning`) has one setting chosen for each label first.
    """

    name: str
    seeds: tuple[int, ...]
    base: Mapping[str, Any]
    axes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    targets: Mapping[str, float]
    tuning: Tuning | None = None
    highlight: tuple[str, ...] = ()
    baselines: bool = False

    def cells(self, choices: Choices | None = None) -> list[Cell]:
        """Every experiment, the seed outermost; with what was chosen, if there is a section ``[tune]``."""
        return [self._cell(labels, seed, choices) for seed in self.seeds for labels in self._combinations()]

    def _combinations(self) -> list[dict[str, str]]:
        names = list(self.axes)
        products = itertools.product(*(self.axes[name] for name in names))
        return [dict(zip(names, labels, strict=True)) for labels in products]

    def _cell(self, labels: Mapping[str, str], seed: int, choices: Choices | None = None) -> Cell:
        tables: dict[str, Any] = merged({}, self.base)
        for name, label in labels.items():
            tables = merged(tables, self.axes[name][label])
        if self.tuning is not None and choices is not None:
            value = choices[self.tuning.place(labels)]
            tables = merged(tables, self.tuning.candidates(labels).tables(value))
        return Cell(labels, seed, merged(tables, {"seed": seed}))

    def trials(self) -> dict[tuple[tuple[str, ...], Any], list[Cell]]:
        """The experiments from which settings are chosen: (labels on the axes `per`, value) -> one for each seed."""
        tuning, found = self.tuning, {}
        if tuning is not None:
            places = [c for c in self._combinations() if all(c[axis] == label for axis, label in tuning.at.items())]
            for labels in places:
                candidates = tuning.candidates(labels)
                for value in candidates.values:
                    cells = [self._cell(labels, seed, {tuning.place(labels): value}) for seed in tuning.seeds]
                    named = [replace(cell, labels={**labels, candidates.key: str(value)}) for cell in cells]
                    found[tuning.place(labels), value] = named
        return found

    def toml(self) -> str:
        """The study as a file."""
        tables = {"name": self.name, "seeds": list(self.seeds), "base": self.base, "axes": self.axes}
        if self.tuning is not None:
            tables["tune"] = self.tuning.toml()
        return to_toml(tables | ({"targets": self.targets} if self.targets else {}))


_OF_NO_COMPONENT = ("seed",)
"""Keys of a section that names a component which are not the component's."""

_IN_PLACE_OF = (("epochs", "steps"),)
"""Keys of `training` of which one alone is set."""

Progress = Callable[[Cell, Exception | None], None]
"""Called with each experiment when it is done, and with the fault if it failed."""


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables laid over each other, section by section; a component that is named anew drops the older one's options.

    Options below no name stay: they may be meant for any component, and one that does not know them refuses them. A
    seed is none of a component's options, and stays, too. Of two keys of which one stands in the place of the other,
    the newer one does.
    """
    result = dict(under)
    for one, other in _IN_PLACE_OF:
        for newer, replaced in ((one, other), (other, one)):
            if newer in over and replaced not in over:
                result.pop(replaced, None)
    for key, value in over.items():
        older = result.get(key)
        if isinstance(value, Mapping) and isinstance(older, Mapping):
            renamed = any(k in value and k in older and value[k] != older[k] for k in ("name", "kind"))
            stays = {k: older[k] for k in _OF_NO_COMPONENT if k in older}
            result[key] = {**stays, **value} if renamed else merged(older, value)
        else:
            result[key] = value
    return result
