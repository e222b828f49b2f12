"""Clients that go on from their own models until there is a newer global one.

Down: nothing beside the settings. Up: nothing beside the update. The client's half is
:mod:`clients.policies.own_model`.
"""

from __future__ import annotations

from strategies.policies.local import LocalPolicy


class OwnModel(LocalPolicy):
    """A client goes on from its own model unless a newer global one exists (KAFL).

    Examples
    --------
    The server does nothing for it but to name the client's half:

    >>> from fedmtl.toy import toy_model
    >>> from strategies.aggregators import ModelAggregator
    >>> from strategies.core.strategy import Strategy
    >>> from strategies.policies import OwnModel
    >>> from strategies.schedulers import Buffered
    >>> from strategies.weightings import Uniform
    >>> strategy = Strategy(Buffered(buffer_size=2), ModelAggregator(Uniform()), OwnModel())
    >>> strategy.initialise(toy_model([0.0]))
    >>> strategy.orders(strategy.begin([7], now=0.0).decision.assignments)[0].policy
    'own-model'
    """

    name = "own-model"
