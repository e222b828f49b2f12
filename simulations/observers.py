"""Observers that leave something behind: the rows of a run's tables, evaluations, measurements of kernels."""

from __future__ import annotations

import time

from fedmtl.evaluation import EvaluationRow, Evaluator
from fedmtl.ntk.measure import KernelProbe
from fedmtl.protocol import Aggregation, Event, Joined, Lost, Rejection
from fedmtl.records import Recorder
from fedmtl.records.convergence import ConvergenceWatch, loss_variance
from fedmtl.records.divergence import Divergence, DivergenceWatch, watch_of
from strategies.core.loop import Loop, Observer


class Recording(Observer):
    """Hands every upload's fate, every server step and every lost client to a recorder, which its maker finishes.

    Parameters
    ----------
    recorder
        That recorder.
    convergence
        Measures every server step, where the recorder has columns for it.
    """

    def __init__(self, recorder: Recorder, convergence: ConvergenceWatch | None = None) -> None:
        self.recorder = recorder
        self.convergence = convergence

    def on_start(self, loop: Loop) -> None:
        """See the model from which the next server step goes out."""
        if self.convergence is not None:
            self.convergence.begin(loop.strategy.model)

    def on_rejection(self, loop: Loop, rejection: Rejection) -> None:
        """Record the upload and why it was turned down."""
        self.recorder.add_rejection(rejection)

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        """Record the step and its uploads."""
        if self.convergence is None:
            self.recorder.add_aggregation(aggregation)
        else:
            self.recorder.add_aggregation(aggregation, self.convergence.measure(aggregation, loop.strategy.model))

    def after_event(self, loop: Loop, event: Event) -> None:
        """Record a real client that was lost, or joined."""
        if isinstance(event, Lost | Joined) and not loop.fleet.simulated:
            self.recorder.add_connection(event)

    def on_end(self, loop: Loop) -> None:
        """Record the uploads that are still unsettled."""
        self.recorder.add_unsettled(loop.strategy.unsettled())


class Evaluation(Observer):
    """Evaluates version 0, then every `every`-th version, and the last.

    Attributes
    ----------
    latest
        Each task's metric on the test set, as of the newest version that was evaluated.
    """

    def __init__(self, evaluator: Evaluator, recorder: Recorder, every: int) -> None:
        self.evaluator = evaluator
        self.recorder = recorder
        self.every = every
        self.latest: dict[str, float] = {}
        self._divergence = DivergenceWatch()

    @property
    def diverged(self) -> Divergence | None:
        """What shows that the run has diverged, or None so far."""
        return self._divergence.found

    def on_start(self, loop: Loop) -> None:
        """Evaluate the model that the run starts from; a resumed run has that evaluation, and later ones, on record."""
        if not self.recall():
            self._evaluate(loop, loop.fleet.now())

    def recall(self) -> bool:
        """Take the newest evaluation from the record; whether there is one."""
        known = self.recorder.latest_evaluation()
        if known:
            self._note(known)
            self._divergence = watch_of(self.recorder.table("evaluations"))
        return bool(known)

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        """Evaluate the version if it is due."""
        if aggregation.version % self.every == 0:
            self._evaluate(loop, aggregation.time)

    def on_end(self, loop: Loop) -> None:
        """Evaluate the last version if it was not due."""
        if loop.strategy.model.version % self.every:
            self._evaluate(loop, loop.fleet.now(), last=True)

    def reached(self, task: str, value: float) -> bool:
        """Whether the task's metric was at `value` or better in the newest evaluation."""
        better = next(t.higher_is_better for t in self.evaluator.tasks if t.name == task)
        latest = self.latest.get(task)
        return latest is not None and (latest >= value if better else latest <= value)

    def _evaluate(self, loop: Loop, time: float, *, last: bool = False) -> None:
        rows = self.evaluator.evaluate(loop.strategy.model, time)
        if own := loop.strategy.aggregator.own_models():
            rows += self.evaluator.evaluate_nodes(loop.strategy.model, list(own.values()), time)
        self.recorder.add_evaluation(rows, last=last)
        losses, version = self.evaluator.client_losses, loop.strategy.model.version
        # The table has a row for each server step, and none has made version 0.
        if losses is not None and version and (variances := loss_variance(losses)) is not None:
            self.recorder.add_loss_variance(version, variances, last=last)
        self._note(rows)
        self._divergence.see(rows)

    def _note(self, rows: list[EvaluationRow]) -> None:
        self.latest = {row.task: row.value for row in rows if row.group == "test" and row.metric != "loss"}


class KernelLog(Observer):
    """Measures the global model's tangent kernels at version 0, then at every `every`-th version, and at the last.

    Attributes
    ----------
    wall_seconds
        Real seconds that the measurements took, those before an interruption included.
    """

    def __init__(self, probe: KernelProbe, recorder: Recorder, every: int) -> None:
        self.probe = probe
        self.recorder = recorder
        self.every = every
        self.wall_seconds = 0.0

    def on_start(self, loop: Loop) -> None:
        """Measure the model that the run starts from; a resumed run has that on record."""
        if not self.recorder.table("ntk").num_rows:
            self._measure(loop, loop.fleet.now())

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        """Measure the version if it is due."""
        if aggregation.version % self.every == 0:
            self._measure(loop, aggregation.time)

    def on_end(self, loop: Loop) -> None:
        """Measure the last version if it was not due."""
        if loop.strategy.model.version % self.every:
            self._measure(loop, loop.fleet.now(), last=True)

    def _measure(self, loop: Loop, at: float, *, last: bool = False) -> None:
        started = time.perf_counter()
        self.recorder.add_kernels(self.probe.measure(loop.strategy.model, at), last=last)
        self.wall_seconds += time.perf_counter() - started
