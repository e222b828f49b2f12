"""Clients that train in a way of their own: the client's half does all the work."""

from __future__ import annotations

from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger


class LocalPolicy(ClientPolicy):
    """Every client is sent the run's settings; `name` and `constants` say what its half does with them.

    Examples
    --------
    Its orders name the client's half, and what that needs of it:

    >>> from fedmtl.toy import toy_model
    >>> from strategies.aggregators import ModelAggregator
    >>> from strategies.core.strategy import Strategy
    >>> from strategies.policies.local import LocalPolicy
    >>> from strategies.schedulers import Synchronous
    >>> from strategies.weightings import Uniform
    >>> class Cautious(LocalPolicy):
    ...     name = "sharpness-aware"
    ...     constants = {"rho": 0.01, "mix": 0.5}
    >>> strategy = Strategy(Synchronous(), ModelAggregator(Uniform()), Cautious())
    >>> strategy.initialise(toy_model([0.0]))
    >>> [order] = strategy.orders(strategy.begin([7], now=0.0).decision.assignments)
    >>> order.policy, order.constants
    ('sharpness-aware', {'rho': 0.01, 'mix': 0.5})
    """

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The run's settings, as they are."""
        return Instruction(settings, {}, {})
