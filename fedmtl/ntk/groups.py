"""Kernels and losses of groups of clients: each group's part of the sample that all clients' kernels are taken at.

A group's kernel is a block of the kernel of the whole sample, so it costs its eigenvalues alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedmtl.data.federated import FederatedData
from fedmtl.ntk.kernels import Kernels
from fedmtl.ntk.sampling import skew_halves, speed_halves
from fedmtl.ntk.spectrum import dense_spectrum

BY_SPEED = ("fast", "slow")
"""The faster and the slower half of the clients."""

BY_SKEW = ("unbiased", "biased")
"""The half of the clients whose mixture of classes is nearer to that of all, and the other half."""


class GroupRow(NamedTuple):
    """One row of the table `ntk_groups`: a task's kernel of losses at a group's examples, and its loss there.

    Attributes
    ----------
    version, time
        Of the model.
    group, task
        One of :data:`BY_SPEED` or :data:`BY_SKEW`, and the task's name.
    examples
        How many of the sample's examples are of clients of the group.
    loss
        Mean of the task's losses at them; None if it is not finite.
    trace, top, effective_rank, eigenvalues
        See :class:`fedmtl.ntk.Spectrum`; the largest eigenvalues only.
    """

    version: int
    time: float
    group: str
    task: str
    examples: int
    loss: float | None
    trace: float
    top: float
    effective_rank: float | None
    eigenvalues: Sequence[float]


def client_groups(data: FederatedData, seconds: np.ndarray | None) -> dict[str, np.ndarray]:
    """The clients of each group by the group's name; no groups by speed where speeds are unknown or equal.

    Parameters
    ----------
    data
        The clients' data; without a task with classes there are no groups by skew.
    seconds
        Each client's time for the same work, shape [clients], or None.
    """
    groups: dict[str, np.ndarray] = {}
    for names, halves in ((BY_SPEED, {} if seconds is None else speed_halves(seconds)), (BY_SKEW, skew_halves(data))):
        groups |= dict(zip(names, halves.values(), strict=False))
    return groups


def group_rows(
    at: tuple[int, float],
    kernels: Kernels,
    grams: Sequence[Tensor | None],
    places: Mapping[str, Tensor],
    *,
    seed: int,
    kept: int,
) -> list[GroupRow]:
    """The rows of one version, task by task; groups without an example in the sample have none.

    Parameters
    ----------
    at
        The model's version and time.
    kernels
        At the whole sample.
    grams
        Each task's kernel of losses, shape [n, n], or None where it does not fit.
    places
        By group, which of the n examples are its clients', int64.
    seed
        Of the draws for kernels that do not fit.
    kept
        Eigenvalues that a row keeps, the largest first.
    """
    rows = []
    for index, (task, gram) in enumerate(zip(kernels.tasks, grams, strict=True)):
        losses = kernels.example_losses(index)
        for group, mine in places.items():
            if not len(mine):
                continue
            spectrum = (
                kernels.spectrum(kernels.losses(index).chosen(mine), seed)
                if gram is None
                else dense_spectrum(gram[mine][:, mine])
            )
            rows.append(
                GroupRow(
                    *at,
                    group,
                    task.name,
                    len(mine),
                    _known(float(losses[mine].mean())),
                    spectrum.trace,
                    spectrum.top,
                    _known(spectrum.effective_rank),
                    spectrum.eigenvalues[:kept].tolist(),
                )
            )
    return rows


def places_of(sample_clients: np.ndarray, groups: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Which of a sample's examples are of each group's clients; `sample_clients` has the client of each example."""
    return {name: torch.from_numpy(np.flatnonzero(np.isin(sample_clients, of))) for name, of in groups.items()}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
