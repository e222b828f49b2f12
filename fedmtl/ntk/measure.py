"""A model's kernels in rows of a table: of all clients' examples together, and client by client."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedmtl.data.federated import FederatedData
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.models.own_state import OwnState
from fedmtl.ntk.alignment import cosines, group_alignment, kernel_alignment, mean_gradient_products
from fedmtl.ntk.groups import GroupRow, group_rows, places_of
from fedmtl.ntk.kernels import Kernels
from fedmtl.ntk.sampling import Sample, pooled_sample
from fedmtl.ntk.spectrum import Spectrum, dense_spectrum
from fedmtl.ntk.tangents import MEMORY, Parameters, Rows
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel
from fedmtl.randomness import default_generators, derive_seed

KEPT = 64
"""Eigenvalues of a kernel that a row keeps, the largest first."""

PROBE_EXAMPLES = 64
"""Examples that a run's own measurements are taken at."""

KernelKind = Literal["outputs", "losses"]
ALL_TASKS = ""
"""The task's name in rows about the sum of the losses of a client's tasks."""


class KernelRow(NamedTuple):
    """One row of the table `ntk`; numbers that do not exist are None.

    Attributes
    ----------
    version, time
        Of the model.
    client
        Whose examples, or None for those of all clients together.
    kernel, task
        ``"outputs"`` or ``"losses"``, and the task's name; empty for the sum of a client's losses.
    examples
        How many the kernel was taken at.
    trace, trace_error, top, condition, effective_rank, eigenvalues
        See :class:`fedmtl.ntk.Spectrum`; the largest eigenvalues only.
    alignment, cosine
        Kernel alignment, and cosine of mean gradients: with each task, in order; in a client's row, with each client.
    """

    version: int
    time: float
    client: int | None
    kernel: KernelKind
    task: str
    examples: int
    trace: float
    trace_error: float
    top: float
    condition: float | None
    effective_rank: float | None
    eigenvalues: Sequence[float]
    alignment: Sequence[float | None]
    cosine: Sequence[float | None]


class Measured(NamedTuple):
    """What a probe says of one version.

    Attributes
    ----------
    tasks
        Kernels of outputs, then of losses, of every task.
    groups
        Kernels of losses of every task and group of clients; empty where no groups were asked for.
    """

    tasks: list[KernelRow]
    groups: list[GroupRow]


class KernelProbe:
    """Measures versions of the global model at always the same examples.

    Parameters
    ----------
    model
        A module that the versions fit; its values are overwritten.
    data
        The clients' data; examples that clients hold out are not used.
    seed
        The run's seed: it alone decides the examples.
    examples
        How many.
    groups
        Clients whose examples are looked at by themselves, too, by the name of the group
        (:func:`fedmtl.ntk.groups.client_groups`).
    parameters, memory
        See :class:`fedmtl.ntk.Kernels`.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        data: FederatedData,
        seed: int,
        *,
        examples: int = PROBE_EXAMPLES,
        groups: Mapping[str, np.ndarray] | None = None,
        parameters: Parameters = "shared",
        memory: int = MEMORY,
    ) -> None:
        self.sample = pooled_sample(data, examples, seed)
        self._places = places_of(self.sample.clients, groups or {})
        self._model = model
        self._own = OwnState(model, ParameterLayout.of(model))
        self._tasks = data.tasks
        self._examples = data.train.take(self.sample.positions)
        self._seed = seed
        self._parameters: Parameters = parameters
        self._memory = memory

    def measure(self, model: GlobalModel, time: float) -> Measured:
        """The rows of one version."""
        with default_generators(derive_seed(self._seed, "ntk model", model.version)):
            return self._measure(model, time)

    def _measure(self, model: GlobalModel, time: float) -> Measured:
        self._own.begin()
        model.layout.bind(self._model, model.vector)
        kernels = Kernels(self._model, self._tasks, self._examples, parameters=self._parameters, memory=self._memory)
        at = (model.version, time, None)
        outputs = [_Kernel(kernels, kernels.outputs(i), self._seed) for i in range(len(self._tasks))]
        losses = [_Kernel(kernels, kernels.losses(i), self._seed) for i in range(len(self._tasks))]
        aligned = _task_alignment(outputs), _task_alignment(losses)
        cosine = kernels.gradient_cosines().tolist()
        rows = []
        for index, task in enumerate(self._tasks):
            spectrum = outputs[index].spectrum
            rows.append(_row(at, "outputs", task.name, kernels.examples, spectrum, aligned[0][index], []))
        for index, task in enumerate(self._tasks):
            spectrum = losses[index].spectrum
            rows.append(_row(at, "losses", task.name, kernels.examples, spectrum, aligned[1][index], cosine[index]))
        grams = [kernel.gram for kernel in losses]
        groups = group_rows(at[:2], kernels, grams, self._places, seed=self._seed, kept=KEPT)
        return Measured(rows, groups)


class _Kernel:
    """A kernel's spectrum, and the kernel itself where it fits; computed once."""

    def __init__(self, kernels: Kernels, rows: Rows, seed: int) -> None:
        self.examples = kernels.examples
        self.gram = kernels.gram(rows) if kernels.fits(rows) else None
        self.spectrum = kernels.spectrum(rows, seed) if self.gram is None else dense_spectrum(self.gram)


def _task_alignment(measured: Sequence[_Kernel]) -> list[list[float]]:
    """Alignment between the tasks' kernels of n by n examples; empty lists where one does not fit.

    Of a kernel of outputs that is the trace over the head's outputs, ``sum_c K_(uc)(vc)``: heads differ in size.
    """
    found = []
    for one in measured:
        if one.gram is None:
            return [[] for _ in measured]
        n, each = one.examples, len(one.gram) // one.examples
        found.append(one.gram.view(n, each, n, each).diagonal(dim1=1, dim2=3).sum(-1))
    aligned: list[list[float]] = kernel_alignment(torch.stack(found)).tolist()
    return aligned


def measure_clients(
    model: MultiTaskModel,
    data: FederatedData,
    sample: Sample,
    *,
    version: int,
    time: float,
    seed: int,
    parameters: Parameters = "shared",
    memory: int = MEMORY,
) -> list[KernelRow]:
    """The rows of each client in a sample: kernels of its tasks at its own examples, and of its losses' sum.

    The alignments and cosines of a row are with the sample's clients in order; None with clients that lack the task.
    """
    clients = list(dict.fromkeys(sample.clients.tolist()))
    everything = data.train.take(sample.positions)
    pooled = Kernels(model, data.tasks, everything, parameters=parameters, memory=memory)
    owned = torch.from_numpy(data.owners[sample.clients])  # [n, tasks]
    outputs = {
        client: Kernels(
            model, data.tasks, everything.take(sample.members(client)), parameters=parameters, memory=memory
        )
        for client in clients
    }
    rows: list[KernelRow] = []
    for index, name in [*enumerate(task.name for task in data.tasks), (None, ALL_TASKS)]:
        there = [client for client in clients if index is None or data.owners[client, index]]
        if not there:
            continue
        losses = pooled.gram(pooled.losses(index) if index is not None else _own_losses(pooled, owned))
        aligned, cosine = _between_clients(losses, sample, clients, there)
        for place, client in enumerate(clients):
            if client not in there:
                continue
            mine = sample.members(client)
            spectrum = dense_spectrum(losses[mine][:, mine])
            between = aligned[place].tolist(), cosine[place].tolist()
            rows.append(_row((version, time, client), "losses", name, len(mine), spectrum, *between))
            if index is not None:
                spectrum = outputs[client].spectrum(outputs[client].outputs(index), seed)
                rows.append(_row((version, time, client), "outputs", name, len(mine), spectrum, [], []))
    return rows


def _own_losses(kernels: Kernels, owned: Tensor) -> Rows:
    """For each example the sum of its losses in those tasks that its client owns."""
    total = kernels.losses()
    widths = torch.tensor([task.outputs for task in kernels.tasks])
    return Rows(total.example, total.cotangent * owned.repeat_interleave(widths, dim=1))


def _between_clients(kernel: Tensor, sample: Sample, clients: list[int], there: list[int]) -> tuple[Tensor, Tensor]:
    """Alignment and gradient cosine of every pair of clients, NaN for those that are not there."""
    groups = [sample.members(client) for client in there]
    place = torch.tensor([clients.index(client) for client in there], dtype=torch.int64)
    found = group_alignment(kernel, groups), cosines(mean_gradient_products(kernel, groups))
    whole = [torch.full((len(clients), len(clients)), math.nan, dtype=torch.float64) for _ in found]
    for into, values in zip(whole, found, strict=True):
        into[place[:, None], place] = values
    return whole[0], whole[1]


def _row(
    at: tuple[int, float, int | None],
    kind: KernelKind,
    task: str,
    examples: int,
    spectrum: Spectrum,
    alignment: Sequence[float],
    cosine: Sequence[float],
) -> KernelRow:
    return KernelRow(
        *at,
        kind,
        task,
        examples,
        spectrum.trace,
        spectrum.trace_error,
        spectrum.top,
        _known(spectrum.condition),
        _known(spectrum.effective_rank),
        spectrum.eigenvalues[:KEPT].tolist(),
        [_known(value) for value in alignment],
        [_known(value) for value in cosine],
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def client_matrix(rows: Sequence[KernelRow], task: str, column: Literal["alignment", "cosine"]) -> np.ndarray:
    """The matrix between clients that the rows of a task hold, NaN where it has no entry."""
    chosen = [
        getattr(row, column) for row in rows if row.client is not None and row.task == task and getattr(row, column)
    ]
    return np.array([[np.nan if value is None else value for value in row] for row in chosen], dtype=np.float64)
