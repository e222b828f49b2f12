"""What a selector is, and the table of clients that selectors score."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedmtl.protocol import GlobalModel, Update
from fedmtl.randomness import numpy_generator
from strategies.parts import Part

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


class Candidates:
    """The clients that were ever there, a row for each: its number, whether it is idle, and named columns of numbers.

    A client costs O(1) when it comes, goes or is written of; a column is one array, to be scored at once.

    Parameters
    ----------
    columns
        The columns, and what stands there for a client of which nothing is known.
    """

    def __init__(self, **columns: float) -> None:
        self._unknown = columns
        self._rows: dict[int, int] = {}
        self._clients = np.empty(0, dtype=np.int64)
        self._idle = np.empty(0, dtype=np.bool_)
        self._columns: dict[str, Floats] = {name: np.empty(0) for name in columns}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, column: str) -> Floats:
        """A column, shape [clients]; it may be written to."""
        return self._columns[column][: len(self)]

    @property
    def clients(self) -> NDArray[np.int64]:
        """The number of the client in each row."""
        return self._clients[: len(self)]

    @property
    def idle(self) -> Rows:
        """Rows of the idle clients."""
        return np.flatnonzero(self._idle[: len(self)])

    def row(self, client: int) -> int:
        """The client's row; a client that is new gets one."""
        row = self._rows.setdefault(client, len(self._rows))
        if row == len(self._clients):
            self._grow(max(64, 2 * row))
        self._clients[row] = client
        return row

    def set_idle(self, client: int, idle: bool) -> None:
        """Note that a client is idle, or is not."""
        row = self.row(client)  # first, for it may move the column
        self._idle[row] = idle

    def _grow(self, capacity: int) -> None:
        more = capacity - len(self._clients)
        self._clients = np.concatenate([self._clients, np.zeros(more, dtype=np.int64)])
        self._idle = np.concatenate([self._idle, np.zeros(more, dtype=np.bool_)])
        for name, unknown in self._unknown.items():
            self._columns[name] = np.concatenate([self._columns[name], np.full(more, unknown)])

    def state_dict(self) -> dict[str, Any]:
        """The table, a tensor for each column."""
        arrays = {"clients": self.clients, "idle": self._idle[: len(self)]}
        arrays |= {name: self[name] for name in self._columns}
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        arrays = {name: tensor.numpy().copy() for name, tensor in state.items()}
        self._clients, self._idle = arrays["clients"], arrays["idle"]
        self._columns = {name: arrays[name] for name in self._unknown}
        self._rows = {client: row for row, client in enumerate(self._clients.tolist())}


class Selector(Part):
    """Chooses among the idle clients. A scheduler's roster tells it who is idle, and the scheduler who reported.

    What it chooses in one call is called a round here; with rounds of the server, these are the same.

    Attributes
    ----------
    candidates
        The clients, with the selector's columns.
    round
        How many rounds were chosen.
    """

    def __init__(self, **columns: float) -> None:
        self.candidates = Candidates(**columns)
        self.round = 0
        self._seed = 0

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Take the seed of the draws."""
        self._seed = seed

    def free(self, clients: Iterable[int]) -> None:
        """These clients are there and idle now."""
        for client in clients:
            self.candidates.set_idle(client, True)

    def leave(self, client: int) -> None:
        """The client is not idle any more: it got an order, or went away."""
        self.candidates.set_idle(client, False)

    @abstractmethod
    def heard(self, update: Update) -> None:
        """A valid update arrived."""

    def choose(self, count: int) -> list[int]:
        """The clients of the next round: `count` different idle ones, or all that are idle if they are fewer."""
        self.round += 1
        generator = numpy_generator(self._seed, type(self).__name__, self.round)
        chosen = self._rows(min(count, len(self.candidates.idle)), generator)
        return [int(client) for client in self.candidates.clients[chosen]]

    @abstractmethod
    def _rows(self, count: int, generator: np.random.Generator) -> Rows:
        """Rows of so many different idle clients; there are that many."""

    def state_dict(self) -> dict[str, Any]:
        """The table and the number of rounds."""
        return {"candidates": self.candidates.state_dict(), "round": self.round}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.candidates.load_state_dict(state["candidates"])
        self.round = int(state["round"])


def sample(weights: Floats, count: int, generator: np.random.Generator) -> Rows:
    """Draw places without replacement, each next one with a probability proportional to its weight.

    The first places of exponential variables divided by the weights ("Weighted random sampling with a reservoir",
    Efraimidis and Spirakis, 2006). A weight of 0 is drawn only when no other is left; weights that are all 0 count the
    same.

    Parameters
    ----------
    weights
        At least 0, shape [places].
    count
        How many to draw, at most the number of places.
    """
    if not weights.any():
        weights = np.ones_like(weights)
    with np.errstate(divide="ignore"):
        keys = generator.standard_exponential(len(weights)) / weights
    if count >= len(keys):
        return np.argsort(keys, kind="stable")
    first = np.argpartition(keys, count)[:count]
    return first[np.argsort(keys[first], kind="stable")]


def normalised(values: Floats) -> Floats:
    """``(x - min) / (max - min)``, which is 0 everywhere if all are equal."""
    if len(values) == 0:
        return values
    low, spread = values.min(), np.ptp(values)
    return (values - low) / spread if spread > 0 else np.zeros_like(values)


def mean_loss(update: Update, term: str) -> float:
    """The loss that the client reported under this name, or the mean of its tasks' mean losses if it reports none."""
    if term in update.terms:
        return update.terms[term]
    return float(np.mean(update.task_losses)) if update.task_losses else 0.0
