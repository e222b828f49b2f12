"""What a selector is, and the table of clients that selectors score."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedmtl.protocol import GlobalModel, Update
from fedmtl.randomness import numpy_generator
from fedmtl.restoring import table_columns
from strategies.core.part import Part

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

_SHARE = 100
"""Of so many clients one is chosen ahead: a look at 100,000 of them serves 1,000 picks, microseconds for each."""


class Candidates:
    """The clients that were ever there, a row for each: its number, whether it is idle, and named columns of numbers.

    A client costs O(1) when it comes, goes or is written of; a column is one array, to be scored at once.

    Parameters
    ----------
    columns
        The columns, and what stands there for a client of which nothing is known.

    Attributes
    ----------
    idle_count
        How many clients are idle.

    Examples
    --------
    Of two clients one is idle, and of one a loss is known:

    >>> from strategies.selectors.base import Candidates
    >>> table = Candidates(loss=-1.0)
    >>> row = table.row(7)
    >>> table["loss"][row] = 0.5
    >>> table.set_idle(9, True)
    >>> table.clients.tolist(), table["loss"].tolist()
    ([7, 9], [0.5, -1.0])
    >>> table.clients[table.idle].tolist(), table.idle_count
    ([9], 1)
    """

    def __init__(self, **columns: float) -> None:
        self.idle_count = 0
        self._unknown = columns
        self._rows: dict[int, int] = {}
        self._clients = np.empty(0, dtype=np.int64)
        self._idle = bytearray()  # 1 or 0: one entry is read and written several times as fast as in an array
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
        return np.flatnonzero(np.frombuffer(self._idle, dtype=np.bool_)[: len(self)])

    def row(self, client: int) -> int:
        """The client's row; a client that is new gets one."""
        row = self._rows.get(client)
        if row is None:
            row = self._rows[client] = len(self._rows)
            if row == len(self._clients):
                self._grow(max(64, 2 * row))
            self._clients[row] = client
        return row

    def set_idle(self, client: int, idle: bool) -> None:
        """Note that a client is idle, or is not."""
        row = self.row(client)  # first, for it may move the column
        if self._idle[row] != idle:
            self._idle[row] = idle
            self.idle_count += 1 if idle else -1

    def is_idle(self, row: int) -> bool:
        """Whether the client of that row is idle."""
        return bool(self._idle[row])

    def _grow(self, capacity: int) -> None:
        more = capacity - len(self._clients)
        self._clients = np.concatenate([self._clients, np.zeros(more, dtype=np.int64)])
        self._idle.extend(bytes(more))
        for name, unknown in self._unknown.items():
            self._columns[name] = np.concatenate([self._columns[name], np.full(more, unknown)])

    def state_dict(self) -> dict[str, Any]:
        """The table, a tensor for each column."""
        arrays = {"clients": self._clients, "idle": np.frombuffer(self._idle, dtype=np.bool_), **self._columns}
        return {name: torch.from_numpy(array[: len(self)].copy()) for name, array in arrays.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        arrays = table_columns(state, ("clients", "idle", *self._unknown))
        self._clients, self._idle = arrays["clients"], bytearray(arrays["idle"].tobytes())
        self.idle_count = sum(self._idle)
        self._columns = {name: arrays[name] for name in self._unknown}
        self._rows = {client: row for row, client in enumerate(self._clients.tolist())}


class Selector(Part):
    """Chooses among the idle clients. A scheduler's roster says who is idle, and the scheduler who reported.

    What it chooses in one call is called a round here; with rounds of the server, these are the same. A look at all
    clients takes milliseconds if they are many. A hundredth of them is therefore chosen at a time where that is more
    than a round: the next rounds take their clients from these, in random order, and there is a new choice when they
    are used up. With up to 100 clients for each one of a round, every round is chosen by itself.

    Attributes
    ----------
    purpose
        What the selector's draws are for, its class's name if empty: selectors of one run with different purposes draw
        independently.
    candidates
        The clients, with the selector's columns.
    round
        How many rounds were chosen.

    Examples
    --------
    The least of one: the newest of the idle clients are next, whatever they report.

    >>> from strategies.selectors import Selector
    >>> class Newest(Selector):
    ...     def heard(self, update):
    ...         return None
    ...     def _rows(self, count, generator):
    ...         return self.candidates.idle[-count:]
    >>> selector = Newest()
    >>> selector.free([3, 5, 8])
    >>> selector.leave(8)
    >>> selector.choose(1)
    [5]
    """

    purpose: ClassVar[str] = ""

    def __init__(self, **columns: float) -> None:
        self.candidates = Candidates(**columns)
        self.round = 0
        self._seed = 0
        self._ahead: list[int] = []  # rows chosen for the next rounds, last first

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
        self._open_round()
        count = min(count, self.candidates.idle_count)
        chosen = self._take(count)
        if len(chosen) < count:
            self._look_ahead(count)
            chosen = self._take(count)
        rows = np.array(chosen, dtype=np.intp)
        self._close_round(rows)
        clients: list[int] = self.candidates.clients[rows].tolist()
        return clients

    def _take(self, count: int) -> list[int]:
        """The next rows of those chosen ahead that are still idle."""
        taken: list[int] = []
        while self._ahead and len(taken) < count:
            row = self._ahead.pop()
            if self.candidates.is_idle(row):
                taken.append(row)
        return taken

    def _look_ahead(self, count: int) -> None:
        """Choose for this round of so many, and for the next ones if there are many clients."""
        table = self.candidates
        many = min(max(count, len(table) // _SHARE), table.idle_count)
        generator = numpy_generator(self._seed, self.purpose or type(self).__name__, self.round)
        rows = self._rows(many, generator)
        if many > count:
            generator.shuffle(rows)  # a choice may begin with its best
        self._ahead = rows[::-1].tolist()

    @abstractmethod
    def _rows(self, count: int, generator: np.random.Generator) -> Rows:
        """Rows of so many different idle clients, a new array; there are that many."""

    def _open_round(self) -> None:
        """A round is about to be chosen; `round` is its number."""
        return None

    def _close_round(self, rows: Rows) -> None:
        """The clients in these rows were chosen for the round."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """The table, the number of rounds, and who was chosen ahead."""
        return {"candidates": self.candidates.state_dict(), "round": self.round, "ahead": list(self._ahead)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.candidates.load_state_dict(state["candidates"])
        self.round = int(state["round"])
        self._ahead = [int(row) for row in state["ahead"]]


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


def percentile(values: Floats, q: float) -> float:
    """As `numpy.percentile`, to the bit, but several times as fast: one partition, and the least value above it."""
    place = (len(values) - 1) * (q / 100)
    low = int(place)
    parted = np.partition(values, low)
    a = float(parted[low])
    b = float(parted[low + 1 :].min(initial=np.inf)) if low + 1 < len(values) else a
    t = place - low
    return b - (b - a) * (1 - t) if t >= 0.5 else a + (b - a) * t


def ranking(values: Floats) -> Rows:
    """Places from the least value to the largest, equals in their order: a stable `numpy.argsort`, but faster.

    An unstable sort is vectorised; after it, equals are put in their order by sorting whole numbers, one for each.
    """
    order = np.argsort(values)
    ordered = values[order]
    run = np.zeros(len(values), dtype=np.int64)  # equals have the same
    np.cumsum(ordered[1:] != ordered[:-1], out=run[1:])
    return np.asarray(np.sort(run * len(values) + order) % max(len(values), 1))


def mean_loss(update: Update, term: str) -> float:
    """The loss that the client reported under this name, or the mean of its tasks' mean losses if it reports none."""
    if term in update.terms:
        return update.terms[term]
    losses = update.task_losses
    if len(losses) == 1:
        return losses[0]
    return float(np.add.reduce(losses)) / len(losses) if losses else 0.0
