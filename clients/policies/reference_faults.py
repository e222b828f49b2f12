"""Faults of the code of FedQS's authors on the client's side, for their study (:mod:`strategies.recipes.fedqs`).

====================================  =================================================================================
similarity = "ref_tensors"            :func:`measured_by_tensors` in place of an angle of whole vectors
sbc_data = "train20"                  :func:`probe_for`: clients are judged on examples that they train on
training.tiny_clients =               batches are counted without a short last one, in
"ref_drop_last"                       :meth:`fedmtl.settings.TrainSettings.batches`
====================================  =================================================================================
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from clients.policies.base import Probe
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import TrainOrder
from fedmtl.similarity import dissimilarity


def probe_for(order: TrainOrder, probe: Probe) -> Probe:
    """The probe, or one on the first ``judged_on`` examples of each class that the client trains on."""
    most = order.constants.get("judged_on", 0)
    return functools.partial(probe, functools.partial(first_of_each_class, most=most)) if most else probe


def first_of_each_class(labels: Tensor, most: int) -> Tensor:
    """Which examples are among the first so many of their class, in the examples' order: bool, shape [n]."""
    classes = labels.long()
    so_far = one_hot(classes).cumsum(0).gather(1, classes[:, None])[:, 0]
    return so_far <= most


def measured_by_tensors(layout: ParameterLayout, a: Tensor, b: Tensor) -> float | None:
    """:func:`tensor_angles` over all tensors that are trained, of vectors of shape [P]."""
    trained = [entry for entry in layout.entries if entry.stop <= layout.trainable.stop]
    return tensor_angles(a, b, [slice(entry.start, entry.stop) for entry in trained])


def tensor_angles(a: Tensor, b: Tensor, tensors: Iterable[slice]) -> float | None:
    """The mean angle over a model's tensors, in degrees.

    Each tensor is first shifted so that its least entry is 0 (a constant one is taken for ones), which turns opposite
    directions into similar ones. A bias counts as much as a large matrix, and a tensor is left out if a single entry of
    it is 0. Only the cosine is kept from exceeding 1, which theirs is not.

    Parameters
    ----------
    a, b
        Flat vectors of the same shape, [P].
    tensors
        The places of the tensors in them.

    Returns
    -------
    float or None
        The measure; None if no tensor is left.
    """
    angles = [
        angle
        for part in tensors
        if bool(a[part].all()) and bool(b[part].all())
        if (angle := dissimilarity(_above_least(a[part]), _above_least(b[part]), "angle")) is not None
    ]
    return math.fsum(angles) / len(angles) if angles else None


def _above_least(v: Tensor) -> Tensor:
    shifted = v - v.min()
    return shifted if bool(shifted.any()) else torch.ones_like(v)
