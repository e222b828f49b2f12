"""How far apart two directions are.

Each measure is 0 for parallel vectors, grows as they turn apart, never is negative, and does not change when either
vector is multiplied by a positive number. So a ratio of two measures is at least 0 and above 1 for whoever is further
off, which a ratio of raw cosines is not. `"angle"` and `"cosine"` order pairs in the same way; `"manhattan"` weighs
many small differences more.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

SimilarityName = Literal["angle", "cosine", "euclidean", "manhattan"]

SIMILARITIES: tuple[SimilarityName, ...] = ("angle", "cosine", "euclidean", "manhattan")
"""All measures; an order refers to one by its place here."""

LARGEST = 180.0
"""No measure exceeds this."""


def dissimilarity(a: Tensor, b: Tensor, name: SimilarityName = "angle") -> float | None:
    """The measure, or None where it is not defined: a vector is zero, or so large that its squared length overflows.

    Parameters
    ----------
    a, b
        Flat vectors of the same shape, [P].
    name
        ``"angle"``: ``theta = arccos(clamp(cos(a, b), -1, 1))`` in degrees, 0 to 180. ``"cosine"``: ``1 - cos(a,
        b)``, 0 to 2. ``"euclidean"``: distance of the vectors scaled to length 1, 0 to 2. ``"manhattan"``: 1-norm of
        the difference of the vectors scaled to 1-norm 1, 0 to 2.
    """
    if name == "manhattan":
        length_a, length_b = a.abs().sum().item(), b.abs().sum().item()
        if not _usable(length_a, length_b):
            return None
        return (a / length_a - b / length_b).abs().sum().item()
    length_a, length_b = torch.linalg.vector_norm(a).item(), torch.linalg.vector_norm(b).item()
    if not _usable(length_a, length_b):
        return None
    # Rounding can lift the cosine of parallel vectors above 1, whose arc cosine is not a number.
    cosine = max(-1.0, min(1.0, torch.dot(a, b).item() / length_a / length_b))
    if not math.isfinite(cosine):
        return None
    if name == "angle":
        return math.degrees(math.acos(cosine))
    return 1.0 - cosine if name == "cosine" else math.sqrt(2.0 - 2.0 * cosine)


def _usable(*lengths: float) -> bool:
    return all(math.isfinite(length) and length > 0 for length in lengths)
