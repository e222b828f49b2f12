"""A strategy with Flower's interface.

Flower is needed only when that is called, so that strategies can be composed and simulated without it; the modules
beside this one do the work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from strategies.core.strategy import Strategy

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Result

    from strategies.flower.rounds import Rounds


class FlowerStrategy(Strategy):
    """Four parts that together decide everything a server decides, as a ``flwr.serverapp.strategy.Strategy``.

    `start` is the way to run a strategy: asynchronously if it is asynchronous. The other methods serve callers that
    drive rounds themselves: a round sends the orders that are due, and each reply is an arrival in the one loop.

    Of Flower's calls none says which round is the last, so none of them has the scheduler apply what it still keeps
    (:meth:`strategies.core.kinds.Scheduler.finish`; FedCompass's reports that came late). `start` does so at its end,
    and whoever drives rounds may call `finish_train` after the last.

    The parameters are those of :class:`strategies.core.strategy.Strategy`.

    Examples
    --------
    In a server app, ``strategy.start(grid, arrays, num_rounds=100)`` runs it.

    >>> from flwr.serverapp.strategy import Strategy
    >>> from strategies.aggregators import GradientAggregator
    >>> from strategies.flower.strategy import FlowerStrategy
    >>> from strategies.schedulers import Buffered
    >>> from strategies.weightings import Discounted, Uniform
    >>> strategy = FlowerStrategy(Buffered(buffer_size=10), GradientAggregator(Discounted(Uniform())))
    >>> isinstance(strategy, Strategy)
    True
    """

    _rounds: Rounds | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> FlowerStrategy:
        """Be an instance of Flower's ``Strategy`` where that can be asked at all: where Flower is loaded."""
        if (flower := sys.modules.get("flwr.serverapp.strategy")) is not None:
            flower.Strategy.register(cls)
        return super().__new__(cls)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the strategy on a Flower grid until it has made so many versions of the model.

        Parameters
        ----------
        grid
            The grid that Flower hands to a server app.
        initial_arrays
            The model to start from, under the names of a PyTorch state dictionary. The strategy must have been
            initialised, for the layout of the model, the settings of training and the seed.
        num_rounds
            Versions to make; Flower's "round" is a server step here.
        timeout
            Seconds that a client has for an order.
        train_config
            Not used: what clients are asked to do is the strategy's to say
            (see :class:`strategies.core.kinds.ClientPolicy`).
        evaluate_config
            If given, the clients evaluate the last model on their held-out data. (Flower asks after every round; in
            an asynchronous run they are busy then.)
        evaluate_fn
            Evaluates version 0 and every later version on the server.

        Returns
        -------
        flwr.serverapp.strategy.Result
            The last model, and the metrics by version.
        """
        from strategies.flower.start import start

        result = start(self, grid, initial_arrays, num_rounds, timeout, evaluate_fn)
        if evaluate_config is not None and result.arrays is not None:
            version = self.model.version
            questions = self.configure_evaluate(version, result.arrays, evaluate_config, grid)
            answers = self.aggregate_evaluate(version, grid.send_and_receive(questions, timeout=timeout))
            if answers is not None:
                result.evaluate_metrics_clientapp[version] = answers
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The orders that are due, as messages."""
        return self._in_rounds(grid).train_messages(arrays)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the replies as arrivals; returns the newest model and its metrics, or None twice."""
        return self._in_rounds(None).take(replies)

    def finish_train(self) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """After the last round: the server step of what the scheduler still keeps; None twice if it keeps nothing."""
        return self._in_rounds(None).finish()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """A message to every connected client that asks it to evaluate the model on its held-out data."""
        return self._in_rounds(grid).evaluate_messages(arrays)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The clients' metrics, averaged with the numbers of their held-out examples; None if no client answered."""
        from strategies.flower.rounds import mean_metrics

        return mean_metrics(replies)

    def summary(self) -> None:
        """Log what the strategy is made of."""
        from strategies.flower.start import log_summary

        log_summary(self)

    def _in_rounds(self, grid: Grid | None) -> Rounds:
        from strategies.flower.rounds import Rounds

        if self._rounds is None or (grid is not None and self._rounds.grid is not grid):
            if grid is None:
                raise RuntimeError("configure_train comes first")
            self._rounds = Rounds(self, grid)
        return self._rounds
