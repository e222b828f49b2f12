"""What a user sees of a run while it goes on.

Both displays are observers of the loop and context managers. They look at the loop at most a few times a second, so
that watching costs a run nothing.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn
from rich.styled import Styled

from fedmtl.config import StopSection
from fedmtl.intervals import fixed
from fedmtl.protocol import Aggregation, Event
from fedmtl.records.divergence import divergence_words
from simulations.cli.console import is_live
from simulations.observers import Evaluation
from strategies.core.loop import Loop, Observer


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment.

    Attributes
    ----------
    version, clock, arrivals
        Versions made, seconds of virtual time, updates that arrived.
    rate
        Updates per second of real time since the display began.
    metrics
        Each task's latest metric on the test set.
    share
        How much of the run is done, in [0, 1].
    left
        Estimated seconds of real time until the end, or None while nobody knows.
    """

    version: int
    clock: float
    arrivals: int
    rate: float
    metrics: dict[str, float]
    share: float
    left: float | None

    @property
    def words(self) -> str:
        """One line, without the metrics."""
        text = f"version {self.version:,}   {self.clock:,.0f} s virtual   {self.rate:,.0f} updates/s"
        return text if self.left is None else f"{text}   {duration(self.left)} left"

    @property
    def metric_words(self) -> str:
        """Each task's latest metric."""
        return "   ".join(f"{task} {fixed(value, 4)}" for task, value in self.metrics.items())


class Meter:
    """Measures a run from the moment it is first looked at."""

    def __init__(self, stop: StopSection) -> None:
        self._stop = stop
        self._began: tuple[float, int, float] | None = None

    def read(self, loop: Loop) -> Snapshot:
        """How far the run is now."""
        now, share = time.perf_counter(), self._share(loop)
        if self._began is None:
            self._began = (now, loop.arrivals, share)
        seconds, arrivals, done = now - self._began[0], loop.arrivals - self._began[1], share - self._began[2]
        evaluation = _evaluation(loop)
        return Snapshot(
            version=loop.strategy.model.version,
            clock=loop.fleet.now(),
            arrivals=loop.arrivals,
            rate=arrivals / seconds if seconds > 0 else 0.0,
            metrics={} if evaluation is None else dict(evaluation.latest),
            share=share,
            left=(1 - share) * seconds / done if done > 0 else None,
        )

    def _share(self, loop: Loop) -> float:
        """The greatest share of a limit that is used up; a target's share is unknown."""
        stop = self._stop
        used = [
            (loop.strategy.model.version, stop.versions),
            (loop.fleet.now(), stop.time),
            (loop.arrivals - loop.rejected, stop.updates),
        ]
        return max(min(1.0, value / limit) for value, limit in used if limit is not None)


def _evaluation(loop: Loop) -> Evaluation | None:
    return next((observer for observer in loop.observers if isinstance(observer, Evaluation)), None)


class Display(Observer, ABC):
    """Shows a run every `seconds`, and says once that it has diverged; a subclass says how."""

    seconds = 5.0

    def __init__(self, console: Console, stop: StopSection) -> None:
        self.console = console
        self._meter = Meter(stop)
        self._next = 0.0
        self._told = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @abstractmethod
    def show(self, snapshot: Snapshot) -> None:
        """Show the run as it is now."""

    def on_start(self, loop: Loop) -> None:
        """Begin to measure the run."""
        self._meter.read(loop)
        self._next = time.perf_counter() + self.seconds
        self._tell(loop)

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        """Say so if the new version shows that the run has diverged."""
        self._tell(loop)

    def after_event(self, loop: Loop, event: Event) -> None:
        """Show the run if it is time."""
        if time.perf_counter() >= self._next:
            self.show(self._meter.read(loop))
            self._next = time.perf_counter() + self.seconds

    def on_end(self, loop: Loop) -> None:
        """Show the run as it ended."""
        self._tell(loop)
        self.show(self._meter.read(loop))

    def _tell(self, loop: Loop) -> None:
        evaluation = _evaluation(loop)
        if not self._told and evaluation is not None and evaluation.diverged is not None:
            self._told = True
            words = divergence_words(evaluation.diverged.as_json())
            self.console.print(f"the run has {words}", soft_wrap=True, style="bold red")


class LineDisplay(Display):
    """A line every few seconds, for a log."""

    def show(self, snapshot: Snapshot) -> None:
        """Print how far the run is, in one line."""
        text = f"{snapshot.share:4.0%}   {snapshot.words}   {snapshot.metric_words}"
        self.console.print(text.rstrip(), soft_wrap=True)


class LiveDisplay(Display):
    """A bar and the latest metrics, for a terminal."""

    seconds = 0.2

    def __init__(self, console: Console, stop: StopSection) -> None:
        super().__init__(console, stop)
        self._progress = Progress(BarColumn(bar_width=24), TaskProgressColumn(), console=console)
        self._bar = self._progress.add_task("", total=1.0)
        self._live = Live(self._shown("starting", ""), console=console, auto_refresh=False)

    def on_start(self, loop: Loop) -> None:
        """Show the bar: not before, for whatever comes first may have a display of its own."""
        super().on_start(loop)
        self._live.start(refresh=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Draw the bar and the metrics anew."""
        self._progress.update(self._bar, completed=snapshot.share)
        self._live.update(self._shown(snapshot.words, snapshot.metric_words), refresh=True)

    def _shown(self, words: str, metrics: str) -> Group:
        # Lines of their own: beside a bar they would be cut off in a narrow terminal, or the bar would.
        return Group(self._progress, words, Styled(metrics, "cyan"))


def new_display(console: Console, stop: StopSection) -> Display:
    """The display that fits where the output goes."""
    return LiveDisplay(console, stop) if is_live(console) else LineDisplay(console, stop)


def duration(seconds: float) -> str:
    """A time that is given in seconds, in words such as ``"1 h 05 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
