"""A guard against updates that are far longer than all others: one client must not ruin what the others made."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedmtl.protocol import JobKey, Update
from fedmtl.update_contract import Lengths

GUARD = 50.0
"""g, where clients are real and nothing else is set."""

MOST_HELD = 10
"""So many updates are enough to judge the first ones by."""

LEAST = 3
"""Of fewer numbers no median is taken: of two nobody knows which is the wrong one."""

PATIENCE = 600.0
"""Seconds that a first update is held at most, so that clients that hang cannot keep it waiting for long."""

_BINS = 64  # in a factor of two: a median is known to about 0.5 %


class RunningMedian:
    """The median of numbers above 0, to half a per cent, however many there are.

    Numbers are counted in bins of equal ratios, so that memory and state do not grow with their number; the median is
    the middle of its bin, and of an even number of numbers the larger of the two.

    Examples
    --------
    >>> from strategies.core.guard import RunningMedian
    >>> median = RunningMedian()
    >>> for number in (1.0, 1e9, 2.0):
    ...     median.add(number)
    >>> median.count, round(median.value, 1)
    (3, 2.0)
    """

    def __init__(self) -> None:
        self.count = 0
        self._bins: list[int] = []  # ascending
        self._counts: dict[int, int] = {}
        self._at = 0  # the place of the median's bin
        self._below = 0  # numbers in the bins before it

    @property
    def value(self) -> float:
        """The median; 0 of none."""
        return 2.0 ** ((self._bins[self._at] + 0.5) / _BINS) if self.count else 0.0

    def add(self, number: float, times: int = 1) -> None:
        """Count a number above 0; with ``times=-1`` take one back."""
        bin = math.floor(math.log2(number) * _BINS)
        self.count += times
        if bin not in self._counts:
            self._counts[bin] = 0
            place = bisect.bisect_left(self._bins, bin)
            self._bins.insert(place, bin)
            self._at += place <= self._at and len(self._bins) > 1
        self._counts[bin] += times
        if bin < self._bins[self._at]:
            self._below += times
        self._settle()

    def _settle(self) -> None:
        """Move to the bin of the median: that of the number with count // 2 smaller ones."""
        rank = self.count // 2
        while self._below > rank or (self._at and not self.count):
            self._at -= 1
            self._below -= self._counts[self._bins[self._at]]
        while self.count and self._below + self._counts[self._bins[self._at]] <= rank:
            self._below += self._counts[self._bins[self._at]]
            self._at += 1

    def state_dict(self) -> dict[str, Any]:
        """The bins that are not empty, with their counts."""
        return {"counts": [[bin, self._counts[bin]] for bin in self._bins if self._counts[bin]]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._counts = {int(bin): int(count) for bin, count in state["counts"]}
        self._bins = sorted(self._counts)
        self.count, self._at, self._below = sum(self._counts.values()), 0, 0
        self._settle()


class Guard:
    """Turns down an update that is more than g times as long as the running median of all accepted ones.

    Judged are the whole update, each head's part of it, and each further vector that enters the model, each by the
    median of its own kind, the update at hand included. Where orders name the local steps (FedCompass, FedQueue),
    lengths are divided by the steps. What is 0, such as the head of a task that a client does not own, is no trouble,
    and counts for no median.

    The first updates, for which there is nothing to hold them against, are held until ten are there, or, where fewer
    clients have orders, the larger part of them, but three at least; then they are judged by their common median. So a
    first update that is hostile is found among honest ones, in asynchronous strategies, too. Where less than three
    clients have orders, or too few answer in time, there is nothing to judge by, and they are taken: a second update is
    waited for ten minutes, a third twice as long as the slower of the two took.

    It has no clock and draws nothing: the same updates in the same order are judged alike.

    Attributes
    ----------
    factor
        g; 0: nothing is judged.
    rejected
        How many updates it turned down.
    largest_ratio
        The largest ratio of length and median among the accepted updates, by kind: ``"model"``, ``"head 0"``, ...,
        and the vectors' names.

    Examples
    --------
    The first of three updates is hostile:

    >>> from fedmtl.toy import toy_layout, toy_update
    >>> from fedmtl.update_contract import Lengths
    >>> from strategies.core.guard import Guard
    >>> guard = Guard()
    >>> guard.start(50.0)
    >>> for client, entry in enumerate([1e6, 3.0, 4.0]):
    ...     update = toy_update(client, [entry, 0.0])
    ...     lengths = guard.lengths(())
    ...     square = lengths.square("delta", update.delta)
    ...     guard.hold(update, guard.measured(update, lengths, {}))
    >>> for key, fault in guard.judge():
    ...     print(key.client, fault)
    0 is 1e+06 long, 2.5e+05 times the median of 3 updates; strategy.guard = 50
    1 None
    2 None
    >>> guard.rejected
    1
    """

    def __init__(self) -> None:
        self.factor = 0.0
        self.rejected = 0
        self.largest_ratio: dict[str, float] = {}
        self._by_step = False
        self._medians: dict[str, RunningMedian] = {}
        self._opening = False
        self._held: dict[JobKey, dict[str, float]] = {}
        self._until = 0.0  # how long they wait for others
        self._longest = 0.0  # of their jobs, seconds

    def start(self, factor: float, *, by_step: bool = False) -> None:
        """Judge by this factor from now on (0: nothing), lengths by local step or whole."""
        self.factor = factor
        self._by_step = by_step
        self._opening = factor > 0.0

    @property
    def opening(self) -> bool:
        """Whether updates are held because there is nothing yet to hold them against."""
        return self._opening

    def holds(self, client: int) -> bool:
        """Whether an update of this client is held."""
        return any(key.client == client for key in self._held)

    def lengths(self, heads: Sequence[slice]) -> Lengths:
        """What is to take an update's norms: those of heads only if they are judged."""
        return Lengths(heads if self.factor else ())

    def measured(self, update: Update, lengths: Lengths, vectors: Mapping[str, bool]) -> dict[str, float]:
        """What is judged of an update: its lengths above 0, by kind; `vectors` says which of them enter the model."""
        steps = max(update.steps, 1) if self._by_step else 1
        squares = {"model": lengths.squares["delta"]}
        squares |= {f"head {task}": square for task, square in enumerate(lengths.of_heads)}
        squares |= {name: lengths.squares[name] for name in update.vectors if vectors.get(name)}
        return {kind: math.sqrt(square) / steps for kind, square in squares.items() if square > 0.0}

    def fault(self, measured: Mapping[str, float]) -> str | None:
        """Why an update is too long, or None: then it counts as accepted."""
        self._count(measured)
        found = self._fault(measured)
        self._settle(measured, found)
        return found

    def hold(self, update: Update, measured: dict[str, float], now: float = 0.0) -> None:
        """Keep an update in mind that came before there was anything to hold it against."""
        self._held[update.key] = measured
        self._longest = max(self._longest, update.duration)
        self._until = now + (PATIENCE if len(self._held) == 1 else min(2.0 * self._longest, PATIENCE))

    @property
    def deadline(self) -> float | None:
        """When what is held must be judged, however little it is."""
        return self._until if self._held else None

    def can_wait(self, now: float) -> bool:
        """Whether what is held is too little to be judged, and need not be."""
        return len(self._held) < LEAST and now < self._until

    def is_due(self, busy: int) -> bool:
        """Whether the held updates are enough to be judged, while so many clients are still at work."""
        held = len(self._held)
        return held > 0 and (held >= MOST_HELD or held + busy < LEAST or held >= max(LEAST, busy))

    def judge(self, further: Callable[[JobKey], str | None] = lambda key: None) -> list[tuple[JobKey, str | None]]:
        """The held updates, in the order in which they came, each with why it is turned down, or None.

        Parameters
        ----------
        further
            Another reason to turn one down, which then counts for no median.
        """
        held, self._held, self._opening = self._held, {}, False
        reasons = {key: further(key) for key in held}
        sound = {key: measured for key, measured in held.items() if reasons[key] is None}
        for measured in sound.values():
            self._count(measured)
        reasons |= {key: self._fault(measured) for key, measured in sound.items()}
        for key, measured in sound.items():
            self._settle(measured, reasons[key])
        return list(reasons.items())

    def _count(self, measured: Mapping[str, float]) -> None:
        for kind, length in measured.items():
            self._medians.setdefault(kind, RunningMedian()).add(length)

    def _fault(self, measured: Mapping[str, float]) -> str | None:
        for kind, length in measured.items():
            median = self._medians[kind]
            if median.count >= LEAST and length > self.factor * median.value:
                what = "" if kind == "model" else f"in {kind!r} "
                step = " per local step" if self._by_step else ""
                return (
                    f"is {what}{length:.3g} long{step}, {length / median.value:.2g} times the median of "
                    f"{median.count} updates; strategy.guard = {self.factor:g}"
                )
        return None

    def _settle(self, measured: Mapping[str, float], fault: str | None) -> None:
        """Forget the lengths of an update that was turned down; note the ratios of one that was not."""
        self.rejected += fault is not None
        for kind, length in measured.items():
            median = self._medians[kind]
            if fault is not None:
                median.add(length, -1)
            elif median.count >= LEAST:
                self.largest_ratio[kind] = max(self.largest_ratio.get(kind, 0.0), length / median.value)

    def state_dict(self) -> dict[str, Any]:
        """Medians, ratios, and what is held."""
        return {
            "rejected": self.rejected,
            "largest_ratio": dict(self.largest_ratio),
            "medians": {kind: median.state_dict() for kind, median in self._medians.items()},
            "opening": self._opening,
            "until": self._until,
            "longest": self._longest,
            "held": [[client, job, dict(measured)] for (client, job), measured in self._held.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned; the factor is the run's, and not of the state."""
        self.rejected = int(state["rejected"])
        self.largest_ratio = {kind: float(ratio) for kind, ratio in state["largest_ratio"].items()}
        self._medians = {}
        for kind, saved in state["medians"].items():
            self._medians.setdefault(kind, RunningMedian()).load_state_dict(saved)
        self._opening = bool(state["opening"])
        self._until, self._longest = float(state["until"]), float(state["longest"])
        self._held = {JobKey(int(client), int(job)): dict(measured) for client, job, measured in state["held"]}
