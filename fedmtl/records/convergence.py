"""What a server step says of convergence: how far model and clients moved, how alike clients are, and who took part.

The formulas, in words and with their sources, are in ``docs/convergence.md``. All lengths and angles come from one
matrix of inner products, which is summed up block by block: what is held beside the updates is a few megabytes,
whatever the model's size. Statistics of batch norm are values and no movement, and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from fedmtl.client_types import TYPE_NUMBERS, type_name
from fedmtl.parameters import cut
from fedmtl.protocol import Aggregation, GlobalModel, Update
from fedmtl.records.schemas import CONVERGENCE, LOSS_VARIANCES

_BLOCK = 1 << 16
"""Entries of a vector that are multiplied at a time: of ten updates they take 6 MB."""

_NOTHING = 1e-12
"""A mean update whose square is so small a part of the mean square is 0 but for rounding."""

Statistics = Mapping[str, float | None]
"""The columns of :data:`fedmtl.records.schemas.CONVERGENCE` but the last, for one server step; None: no meaning."""


class ConvergenceWatch:
    """Measures the server steps of a run, one after the other. It holds one vector: the model of the step before.

    Parameters
    ----------
    fast
        The faster half of the clients; None where speeds are equal or unknown.

    Examples
    --------
    Two clients go (3, 4) and (-3, 4), and the model by the mean:

    >>> from fedmtl.protocol import Aggregation
    >>> from fedmtl.records.convergence import ConvergenceWatch
    >>> from fedmtl.toy import toy_model, toy_update
    >>> watch = ConvergenceWatch(fast=[1])
    >>> watch.begin(toy_model([0.0, 10.0]))
    >>> updates = toy_update(0, [3.0, 4.0]), toy_update(1, [-3.0, 4.0])
    >>> step = Aggregation(1, 2.5, "full", updates, (0.5, 0.5), (0, 0), frozenset())
    >>> found = watch.measure(step, toy_model([0.0, 14.0], version=1))
    >>> {name: value for name, value in found.items() if value is not None}  # doctest: +NORMALIZE_WHITESPACE
    {'step_norm': 4.0, 'update_norm': 5.0, 'update_spread': 3.0, 'dissimilarity': 1.25, 'step_cosine': 0.8,
     'pair_cosine': 0.28, 'drift': 0.5, 'share_fast': 0.5}
    """

    def __init__(self, fast: Collection[int] | None = None) -> None:
        self._fast = None if fast is None else frozenset(fast)
        self._before: GlobalModel | None = None

    def begin(self, model: GlobalModel) -> None:
        """The model from which the next step goes out, at a run's start and where it is resumed."""
        self._before = model

    def measure(self, aggregation: Aggregation, model: GlobalModel) -> Statistics:
        """The statistics of a step, and the model that it made."""
        if self._before is None:
            raise RuntimeError("call begin(model) before the first server step")
        before, self._before = self._before, model
        return step_statistics(before, model, aggregation.updates, aggregation.weights, self._fast)


def step_statistics(
    before: GlobalModel,
    after: GlobalModel,
    updates: Sequence[Update],
    weights: Sequence[float],
    fast: Collection[int] | None,
) -> Statistics:
    """The statistics of a server step from `before` to `after`.

    Parameters
    ----------
    before, after
        The models.
    updates, weights
        What went in, and the weight that each had.
    fast
        The faster half of the clients, if there is one.

    Returns
    -------
    Statistics
        None where a statistic has no meaning, or is not finite.
    """
    found = {
        **_geometry(inner_products(before, after, updates), updates, _norm(before)),
        **_shares(updates, weights, fast),
    }
    return {name: None if value is None or not math.isfinite(value) else value for name, value in found.items()}


def inner_products(before: GlobalModel, after: GlobalModel, updates: Sequence[Update]) -> NDArray[np.float64]:
    """Inner products of the updates and, as the last one, the server's step, in float64, shape [n + 1, n + 1]."""
    products = torch.zeros(len(updates) + 1, len(updates) + 1, dtype=torch.float64)
    size = before.layout.trainable.stop
    for start in range(0, size, _BLOCK):
        part = slice(start, min(start + _BLOCK, size))
        step = cut(after.vector, part) - cut(before.vector, part)
        rows = torch.stack([*(cut(update.delta, part) for update in updates), step]).double()
        products.addmm_(rows, rows.T)
    return products.numpy()


def _norm(model: GlobalModel) -> float:
    return float(torch.linalg.vector_norm(cut(model.vector, model.layout.trainable), dtype=torch.float64))


def _geometry(products: NDArray[np.float64], updates: Sequence[Update], model_norm: float) -> dict[str, float | None]:
    """Lengths and angles; `products` as `inner_products` gives them.

    Few calls into NumPy: among the work of a step their caches are cold, and each costs more than its arithmetic.
    """
    *squares, step_square = products.diagonal().tolist()
    lengths, step_norm, n = [math.sqrt(square) for square in squares], math.sqrt(step_square), len(squares)
    found: dict[str, float | None] = dict.fromkeys(CONVERGENCE.names[:7]) | {"step_norm": step_norm}
    if not n:
        return found
    mean_square = math.fsum(squares) / n
    found["update_norm"] = math.fsum(lengths) / n
    found["drift"] = math.sqrt(mean_square) / model_norm if model_norm else None
    of_client: dict[int, list[int]] = {}
    for row, update in enumerate(updates):
        of_client.setdefault(update.client, []).append(row)
    if len(of_client) > 1:
        square_of_mean = float(products[:-1, :-1].sum()) / n**2
        found["update_spread"] = math.sqrt(max(mean_square - square_of_mean, 0.0))
        if square_of_mean > _NOTHING * mean_square:
            found["dissimilarity"] = math.sqrt(mean_square / square_of_mean)
    # What is of length 0 has no direction: its row is 0, and is not counted.
    inverse = np.array([1.0 / length if length else 0.0 for length in (*lengths, step_norm)])
    cosines = products * inverse * inverse[:, None]
    found["step_cosine"] = _mean(float(cosines[:-1, -1].sum()), sum(map(bool, lengths)) if step_norm else 0)
    # Each pair of updates of different clients is in both sums twice.
    total, pairs = float(cosines[:-1, :-1].sum()), sum(map(bool, lengths)) ** 2
    for rows in of_client.values():
        moved = sum(bool(lengths[row]) for row in rows)
        total -= moved if len(rows) == 1 else float(cosines[np.ix_(rows, rows)].sum())
        pairs -= moved**2
    found["pair_cosine"] = _mean(total, pairs)
    return found


def _mean(total: float, count: int) -> float | None:
    """A mean of cosines, which rounding does not lead beyond 1."""
    return min(max(total / count, -1.0), 1.0) if count else None


def _shares(
    updates: Sequence[Update], weights: Sequence[float], fast: Collection[int] | None
) -> dict[str, float | None]:
    """What of the step's weights the fast half has, and each client type."""
    sizes = [abs(weight) for weight in weights]
    total = math.fsum(sizes)
    types = [type_name(update.terms.get("client_type")) for update in updates]
    found: dict[str, float | None] = dict.fromkeys(("share_fast", *(f"share_{name}" for name in TYPE_NUMBERS)))
    if not total:
        return found
    if fast is not None:
        found["share_fast"] = math.fsum(p for p, u in zip(sizes, updates, strict=True) if u.client in fast) / total
    if any(types):
        for name in TYPE_NUMBERS:
            found[f"share_{name}"] = math.fsum(p for p, said in zip(sizes, types, strict=True) if said == name) / total
    return found


def loss_variance(losses: NDArray[np.float64]) -> list[float | None] | None:
    """For each task the variance of its loss over the clients that have one.

    Parameters
    ----------
    losses
        Mean losses on the clients' held-out examples, not a number where a client has none, shape [clients, tasks].

    Returns
    -------
    list or None
        None in it where fewer than two clients have the loss, or one is not finite; None if that is so for all tasks.

    Examples
    --------
    >>> import numpy as np
    >>> from fedmtl.records.convergence import loss_variance
    >>> loss_variance(np.array([[1.0, 0.5], [3.0, np.nan]]))
    [1.0, None]
    """
    found: list[float | None] = []
    for column in losses.T:
        known = column[~np.isnan(column)]
        found.append(float(known.var()) if known.size > 1 and np.isfinite(known).all() else None)
    return found if any(entry is not None for entry in found) else None


def with_variances(part: pa.Table, variances: Mapping[int, Any]) -> pa.Table:
    """Rows of `aggregations` with the column `loss_variance`, null for versions that were not evaluated."""
    field = CONVERGENCE.field("loss_variance")
    values = [variances.get(version) for version in part["version"].to_pylist()]
    return part.append_column(field, pa.array(values, field.type))


def variances_in(finished: pa.Table) -> pa.Table:
    """The evaluated versions of a finished table `aggregations`, and their variances: what `with_variances` took."""
    evaluated = finished.filter(finished["loss_variance"].is_valid())
    return evaluated.select(LOSS_VARIANCES.names).cast(LOSS_VARIANCES)
