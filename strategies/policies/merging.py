"""Clients that are sent their neighbours' models, and merge them themselves.

Down: each neighbour's model as the vector ``neighbour/l`` and its weight W_il as the term ``weight/l``; the constants
``match``, ``examples`` and ``bn_data``. Up: nothing beside the update. The client's half is
:mod:`clients.policies.merging`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from torch import Tensor

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.models.chain import hidden_layers
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.models.norms import norms_in
from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.aggregators.gossip import Gossip
from strategies.core.kinds import Aggregator, ClientPolicy, Instruction
from strategies.core.ledger import Ledger

Match = Annotated[
    Literal["activations", "weights", "none"], Param("what units are matched by before averaging", source="paper")
]
Sampled = Annotated[int, Param("a client's examples that activations are taken from, at most", ge=2)]
NormData = Annotated[
    Literal["private", "shared"],
    Param("whose examples statistics of batch norm are measured on after a merge (their code: shared)"),
]


class Merging(ClientPolicy):
    """Clients merge their neighbours' models before they train (DIMAT).

    Parameters
    ----------
    aggregator
        Has the models and the graph, and takes no gossip steps itself.

    Raises
    ------
    ConfigError
        If it has no models of the clients' own, or mixes them itself.

    Examples
    --------
    Client 1 of four is sent the models of the others, each with its weight:

    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model
    >>> from strategies.aggregators.gossip import Gossip
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.policies.merging import Merging
    >>> model, ledger = toy_model([1.0, 2.0]), Ledger()
    >>> ledger.met(range(4))
    >>> gossip = Gossip(topology="full", steps=0)
    >>> gossip.prepare(model, seed=0)
    >>> instruction = Merging(gossip).instruct(1, TrainSettings(), model, ledger)
    >>> dict(sorted(instruction.terms.items()))
    {'weight/0': 0.25, 'weight/2': 0.25, 'weight/3': 0.25}
    >>> sorted(instruction.vectors)
    ['neighbour/0', 'neighbour/2', 'neighbour/3']
    """

    name = "merging"
    provides = frozenset({"merging"})

    def __init__(
        self,
        aggregator: Aggregator,
        *,
        match: Match = "activations",
        examples: Sampled = 256,
        bn_data: NormData = "private",
    ) -> None:
        if not isinstance(aggregator, Gossip) or aggregator.steps > 0:
            raise ConfigError(
                f"Merging with {type(aggregator).__name__}: it needs 'neighbours', which none of them has; take "
                "strategy.aggregator.name = 'gossip' with steps = 0"
            )
        self.gossip = aggregator
        self.match = match
        self.bn_data = bn_data
        self.constants = {"match": match, "examples": examples, "bn_data": bn_data}
        if bn_data == "shared":
            self.only_simulated = "bn_data = 'shared' takes examples of all clients, which no real client has"
        self._models: tuple[int, Mapping[int, Tensor]] | None = None  # of this version

    def examine(self, model: MultiTaskModel, features: Tensor) -> None:
        """Refuse a model whose units cannot be matched, and a choice of examples for a batch norm that is not there."""
        if self.match != "none":
            hidden_layers(model.backbone)
        if self.bn_data == "shared" and not norms_in(model.backbone):
            raise ConfigError("bn_data = 'shared' is for models with batch norm, and this one has none: leave it out")

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The neighbours' models and weights."""
        weights = self.gossip.neighbours(client, model.version, ledger)
        # The same tensor for all who get the model: it is sent to each, but stored once.
        if self._models is None or self._models[0] != model.version or not weights.keys() <= self._models[1].keys():
            self._models = (model.version, self.gossip.own_models())
        models = self._models[1]
        return Instruction(
            settings,
            {f"weight/{other}": weight for other, weight in weights.items()},
            {f"neighbour/{other}": models[other] for other in weights},
        )
