"""Gossip in place of a server: every client has a model of its own, and they mix them with their neighbours.

The server of a simulation stands for the network here: it keeps the N models, shape [N, P], sends each client its own
to train, and mixes them. What a run calls the global model is the mean of the clients' models; no client has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmtl.components import Param
from fedmtl.protocol import GlobalModel
from fedmtl.randomness import torch_generator
from fedmtl.restoring import checked_tensor
from strategies.aggregators.topologies import Degree, Edges, Topology, TopologyOption, degrees, mixing, without
from strategies.core.kinds import Aggregator, Step
from strategies.core.ledger import Ledger

MixOrder = Annotated[
    Literal["after", "before"], Param("whether a round mixes after it has trained, or before", source="paper")
]
Start = Annotated[Literal["one", "own"], Param("all start from one model, or each from one of its own")]


class Graph(NamedTuple):
    """Edges of a round, and the number of neighbours of each client, shape [N]."""

    edges: Edges
    degrees: NDArray[np.int64]


class Gossip(Aggregator):
    """Every client has a model, and mixes it with its neighbours' (DFedSAM; with policy = "merging" DIMAT).

    With what client i trained, ``z_i = x_i + Delta_i``, each round takes Q gossip steps: ``X <- W^Q Z``. A client that
    was lost in a round has trained nothing, and takes part in no gossip: ``x_i`` stays as it is, and W is that of the
    graph without it. A client that comes later starts with the mean of the models.

    Parameters
    ----------
    steps
        Q; 0 where clients merge their neighbours' models themselves.
    topology, degree
        The graph of each round (:class:`strategies.aggregators.topologies.Topology`).
    mix_order
        ``"after"``: a round trains, then mixes. ``"before"``: it mixes, then trains; the models between rounds are
        those that were not mixed yet. The mean of the models is the same.
    start
        ``"one"``: all start from the run's model. ``"own"``: those who are there at the start have models of their own,
        each tensor's entries in an order of their own, which are draws like the run's model.

    Examples
    --------
    Four clients on a ring mix their models once. Client 2 is not client 0's neighbour.

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators.gossip import Gossip
    >>> from strategies.core.kinds import Step
    >>> model = toy_model([0.0, 0.0])
    >>> gossip = Gossip(topology="ring", steps=1)
    >>> gossip.prepare(model, seed=0)
    >>> step = Step.of(model, [toy_update(0, [3.0, 6.0]), *(toy_update(client) for client in (1, 2, 3))])
    >>> mean, weights = gossip.aggregate(step)
    >>> mean, [gossip.own_models()[client].tolist() for client in range(4)]
    (tensor([0.7500, 1.5000]), [[1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [1.0, 2.0]])
    """

    averages_models = True
    no_rule = "clients mix their models with their neighbours', and no server takes a mean"
    needs = MappingProxyType(
        {
            "fresh-updates": "clients mix the models of one round, and an older update is of another model",
            "distinct-clients": "a client has one model in a round",
        }
    )

    def __init__(
        self,
        *,
        steps: Annotated[int, Param("gossip steps of a round; 0 where clients merge models themselves", ge=0)] = 1,
        topology: TopologyOption = "ring",
        degree: Degree = 4,
        mix_order: MixOrder = "after",
        start: Start = "one",
    ) -> None:
        self.topology = Topology(topology, degree)
        self.steps = steps
        if steps == 0:
            self.needs = MappingProxyType(
                {**self.needs, "merging": "without gossip steps, too, nobody's models would be mixed"}
            )
        self.mix_order = mix_order
        self.start = start
        self._seed = self._model_seed = 0
        self._rows: dict[int, int] = {}
        self._models = torch.empty(0)  # [N, P], as they stand between rounds
        self._bases = torch.empty(0)  # [N, P], to train from; the same, unless mixing comes first
        self._mean = torch.empty(0)
        self._tensors: list[slice] = []
        self._graph: tuple[int, Graph] | None = None  # of this version

    def start_models(self, seed: int) -> None:
        """Take the seed of the models that clients start from, where these are their own."""
        self._model_seed = seed

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """No client has a model yet; take the seed of the graphs."""
        self._seed = seed
        self._mean = model.vector
        self._tensors = [slice(entry.start, entry.stop) for entry in model.layout.entries] or [model.layout.trainable]
        self._models = self._bases = model.vector.new_empty(0, model.layout.size)

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Train, mix; the mean of the models, and 1/N for each update."""
        graph = self._graph_of(step.model.version, step.ledger)
        z = self._bases.clone()
        for update in step.updates:
            z[self._rows[update.client]] += update.delta
        absent = self._rows.keys() - {update.client for update in step.updates}
        w = mixing(without(graph.edges, [self._rows[client] for client in absent]), len(z))
        mixed = z
        for _ in range(self.steps):
            mixed = w @ mixed
        self._bases = mixed
        self._models = mixed if self.mix_order == "after" else z
        self._mean = self._models.mean(0)
        return self._mean, (1.0 / len(z),) * len(step.updates)

    def statistics(self, step: Step, proposed: Tensor, weights: Sequence[float]) -> Tensor:
        """As proposed: the mean of the clients' own, which gossip averages."""
        return proposed

    def model_for(self, client: int, model: GlobalModel, ledger: Ledger) -> GlobalModel:
        """The client's own model."""
        self._admit(ledger)
        # Its own memory: what is sent is kept as long as the job, and the models of all clients should not be.
        return GlobalModel(model.version, self._bases[self._rows[client]].clone(), model.layout)

    def transfers(self, client: int, version: int, ledger: Ledger) -> tuple[int, int]:
        """A model from and to each neighbour in each gossip step; if clients merge themselves, one to each."""
        degree = int(self._graph_of(version, ledger).degrees[self._rows[client]])
        return (degree * self.steps, degree * max(1, self.steps))

    def neighbours(self, client: int, version: int, ledger: Ledger) -> dict[int, float]:
        """The clients l that a client i talks to in the round that starts from this version, each with its W_il."""
        graph, row = self._graph_of(version, ledger), self._rows[client]
        edges, clients = graph.edges, list(self._rows)
        others = np.concatenate([edges[edges[:, 0] == row, 1], edges[edges[:, 1] == row, 0]])
        degree = np.maximum(graph.degrees[others], graph.degrees[row])
        return {clients[other]: float(1.0 / (1.0 + d)) for other, d in zip(others, degree, strict=True)}

    def own_models(self) -> Mapping[int, Tensor]:
        """Every client's model."""
        return {client: self._models[row] for client, row in self._rows.items()}

    def _admit(self, ledger: Ledger) -> None:
        if len(ledger.known) == len(self._rows):
            return
        new = sorted(ledger.known - self._rows.keys())
        self._rows |= {client: len(self._rows) + place for place, client in enumerate(new)}
        first = not len(self._models)
        rows = self._own_starts(new) if first and self.start == "own" else self._mean.expand(len(new), -1)
        together = self._bases is self._models
        self._bases = torch.cat([self._bases, rows])
        self._models = self._bases if together else torch.cat([self._models, rows])

    def _own_starts(self, clients: Sequence[int]) -> Tensor:
        rows = self._mean.repeat(len(clients), 1)
        for client, row in zip(clients, rows, strict=True):
            generator = torch_generator(self._model_seed, "start", client)
            for tensor in self._tensors:
                row[tensor] = row[tensor][torch.randperm(tensor.stop - tensor.start, generator=generator)]
        return rows

    def _graph_of(self, version: int, ledger: Ledger) -> Graph:
        self._admit(ledger)
        nodes = len(self._rows)
        if self._graph is None or self._graph[0] != version or len(self._graph[1].degrees) != nodes:
            edges = self.topology.edges(nodes, self._seed, version)
            self._graph = (version, Graph(edges, degrees(edges, nodes)))
        return self._graph[1]

    def state_dict(self) -> dict[str, Any]:
        """The clients, their models and the mean of these."""
        bases = None if self._bases is self._models else self._bases
        return {"clients": list(self._rows), "models": self._models, "bases": bases, "mean": self._mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._rows = {int(client): row for row, client in enumerate(state["clients"])}
        self._models = checked_tensor(state["models"])
        self._bases = self._models if state["bases"] is None else checked_tensor(state["bases"])
        self._mean = checked_tensor(state["mean"])
