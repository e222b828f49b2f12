"""Running a strategy on a grid as Flower's users do: ``strategy.start(grid, initial_arrays, num_rounds)``."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from fedmtl.protocol import Aggregation, GlobalModel
from strategies.core.loop import Loop, Observer
from strategies.core.strategy import Strategy
from strategies.flower.fleet import GridFleet
from strategies.flower.messages import arrays_of, vector_of
from strategies.flower.rounds import step_metrics

_log = logging.getLogger("flwr")  # where Flower's strategies log

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


def start(
    strategy: Strategy,
    grid: Grid,
    initial_arrays: ArrayRecord,
    versions: int,
    ttl: float,
    evaluate_fn: EvaluateFn | None,
) -> Result:
    """Run a strategy on Flower's grid: the work of :meth:`strategies.flower.strategy.FlowerStrategy.start`."""
    layout = strategy.model.layout
    model = GlobalModel(0, vector_of(initial_arrays, layout), layout)
    strategy.initialise(model, strategy.settings, strategy.seed, strategy.model_seed)
    log_summary(strategy)
    result = Result()
    results = _Results(result, evaluate_fn)
    results.evaluate(model)
    fleet = GridFleet(grid, ttl=ttl)
    loop = Loop(strategy, fleet, [results])
    try:
        loop.run(lambda run: f"{versions} versions were made" if run.strategy.model.version >= versions else None)
    finally:
        fleet.close()
    _log.info("Strategy %s ended: %s", strategy.name, loop.ended)
    result.arrays = arrays_of(strategy.model)
    return result


def log_summary(strategy: Strategy) -> None:
    """Log what a strategy is made of."""
    parts = (strategy.scheduler, strategy.aggregator, strategy.policy, strategy.task_weights)
    _log.info("Strategy %s: %s", strategy.name, " x ".join(type(part).__name__ for part in parts))


class _Results(Observer):
    """Fills Flower's record of a run's metrics, by version."""

    def __init__(self, result: Result, evaluate_fn: EvaluateFn | None) -> None:
        self._result = result
        self._evaluate_fn = evaluate_fn

    def evaluate(self, model: GlobalModel) -> None:
        """Evaluate a version on the server."""
        if self._evaluate_fn is not None:
            metrics = self._evaluate_fn(model.version, arrays_of(model))
            if metrics is not None:
                self._result.evaluate_metrics_serverapp[model.version] = metrics

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        """Note the metrics of a server step, and evaluate the version that it made."""
        model = loop.strategy.model
        self._result.train_metrics_clientapp[aggregation.version] = step_metrics(aggregation, model.layout)
        self.evaluate(model)
