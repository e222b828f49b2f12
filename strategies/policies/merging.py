"""Clients are sent their neighbours' models, and merge them themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from fedmtl.errors import ConfigError
from fedmtl.models.chain import hidden_layers
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.models.norms import norms_in
from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.aggregators.gossip import Gossip
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger

Match = Literal["activations", "weights", "none"]
NormData = Literal["private", "shared"]


class NeighbourModels(ClientPolicy):
    """The vectors ``neighbour/l`` and the terms ``weight/l`` (W_il) for a client's neighbours l.

    The client's half is :mod:`clients.policies.merging`.

    Parameters
    ----------
    gossip
        Has the models and the graph; it takes no gossip steps itself.
    match
        What clients match units by.
    examples
        From how many of their examples, at most.
    bn_data
        Whether statistics of batch norm are measured on a client's own examples, or on some of all clients'.
    """

    name = "merging"
    provides = frozenset({"merging"})

    def __init__(self, gossip: Gossip, match: Match, examples: int, bn_data: NormData = "private") -> None:
        self.gossip = gossip
        self.match = match
        self.examples = examples
        self.bn_data = bn_data
        if bn_data == "shared":
            self.only_simulated = "bn_data = 'shared' takes examples of all clients, which no real client has"
        self._models: tuple[int, Mapping[int, Tensor]] | None = None  # of this version

    @property
    def constants(self) -> Mapping[str, Any]:
        """How to merge."""
        return {"match": self.match, "examples": self.examples, "bn_data": self.bn_data}

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
