"""Label skew without quantity skew: every client draws its mixture of classes, and all have the same size."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.data.pool import Pool
from fedmtl.partitions.cutting import check_enough
from fedmtl.partitions.strata import Bins, By, strata_of
from fedmtl.randomness import numpy_generator


def dirichlet_equal(
    pool: Pool,
    clients: int,
    seed: int,
    *,
    alpha: Annotated[
        float,
        Param("concentration, times the classes' frequencies; the smaller, the fewer classes", gt=0, le=1e6),
    ] = 1.0,
    by: By = "",
    bins: Bins = 10,
) -> list[np.ndarray]:
    """Every client draws its own mixture of classes, and all have the same number of examples, but for one.

    "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification" (arXiv 1909.06335):
    client i draws ``q_i ~ Dir(alpha p)``, p the classes' frequencies among all examples, and then the class of each of
    its examples from q_i, without replacement. Of a class that is used up nothing more is drawn: q_i is then normalised
    over the others, and where nothing of it is left, the classes' remaining examples take its place. So clients that
    are late have less of a choice; who is, is random.

    Raises
    ------
    DataError
        If there are fewer examples than clients, or a target has fewer different values than bins.
    """
    strata = strata_of(pool, by, bins)
    examples = len(strata.labels)
    check_enough(examples, clients)
    rng = numpy_generator(seed, "dirichlet-equal")
    # The examples of each class in random order, one class after the other; `taken` says how many are given away.
    order = np.lexsort((rng.random(examples), strata.labels))
    sizes = strata.sizes
    starts, taken = np.cumsum(sizes) - sizes, np.zeros_like(sizes)
    frequencies = sizes / examples
    parts: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * clients
    for turn, client in enumerate(rng.permutation(clients).tolist()):
        size = examples * (turn + 1) // clients - examples * turn // clients
        drawn = _draw(size, sizes - taken, _mixture(alpha, frequencies, rng), rng)
        runs = [order[start : start + count] for start, count in zip(starts + taken, drawn, strict=True) if count]
        parts[client] = np.sort(np.concatenate(runs))
        taken += drawn
    return parts


def _mixture(alpha: float, frequencies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A draw of Dir(alpha p), shape [classes]; of its limit, a single class, where alpha is too small for numbers."""
    concentration = alpha * frequencies
    return rng.dirichlet(concentration) if concentration.min() > 0 else rng.multinomial(1, frequencies)


def _draw(size: int, left: np.ndarray, mixture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How many examples of each class a client takes, shape [classes].

    Drawing them one by one, and again where a class is used up, gives the same numbers as drawing all that are missing
    at once, and again those that were too many.

    Parameters
    ----------
    size
        How many in all.
    left
        How many there still are of each class, shape [classes].
    mixture
        q_i, shape [classes].
    """
    drawn = np.zeros_like(left)
    while missing := size - int(drawn.sum()):
        free = left - drawn
        chances = np.where(free > 0, mixture, 0.0)
        if not chances.sum() > 0:
            chances = free.astype(np.float64)
        drawn += np.minimum(rng.multinomial(missing, chances / chances.sum()), free)
    return drawn
