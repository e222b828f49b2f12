"""What happens in another process: a trainer, and how data, jobs and updates get there and back.

Tensors travel as NumPy arrays, which the processes of a machine share where they are large; everything else travels as
plain values. Nothing here knows how the processes are started or talked to.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.trainer import LocalTrainer
from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.protocol import Update
from fedmtl.randomness import undisturbed_generators
from fedmtl.state import join, order_from_state, order_state, split, update_from_state, update_state
from simulations.workers.base import Job

_ALIGNMENT = 64  # bytes

Result = tuple[Any, dict[str, np.ndarray]]
"""An update as it travels: its plain part, and its arrays by name."""


class CohortTrainer:
    """A trainer in a process of its own: it takes cohorts of jobs and trains one after the other, on one thread.

    Parameters
    ----------
    model
        The module to train with; its values do not matter.
    data
        The clients' data, as `pack_data` packed them.
    device
        Where to train.
    """

    def __init__(self, model: MultiTaskModel, data: Mapping[str, Any], device: str) -> None:
        torch.set_num_threads(1)
        # Shared arrays are read-only, and so is their use here.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        self._device = torch.device(device)
        self._trainer = LocalTrainer(model, unpack_data(data), device=self._device)

    def ready(self) -> bool:
        """Answer, once everything is in place."""
        return True

    def train(self, cohort: Any, names: Sequence[str], *arrays: np.ndarray) -> list[Result]:
        """Train the jobs of a cohort that `pack_jobs` packed; the results are in their order."""
        tensors = {n: _tensor(a).to(self._device) for n, a in zip(names, arrays, strict=True)}
        with undisturbed_generators():
            return [self._train(job) for job in join(cohort, tensors)]

    def _train(self, job: Mapping[str, Any]) -> Result:
        order = order_from_state(job["order"], self._trainer.layout)
        plain, tensors = split(update_state(self._trainer.train(order, job["observed"])))
        return plain, {name: tensor.numpy() for name, tensor in tensors.items()}


def pack_jobs(jobs: Iterable[Job]) -> tuple[Any, dict[str, Tensor]]:
    """The plain part of some jobs, and their tensors by name; a tensor that several of them use is there once."""
    return split([{"order": order_state(job.order), "observed": job.observed} for job in jobs])


def unpack_update(result: Result) -> Update:
    """The update that a `CohortTrainer` returned.

    Its tensors are copies: they share no memory with the rest of the cohort.
    """
    plain, arrays = result
    return update_from_state(join(plain, {name: torch.tensor(array) for name, array in arrays.items()}))


def pack_data(data: FederatedData) -> dict[str, Any]:
    """The clients' data as plain values and NumPy arrays."""
    return {
        "tasks": data.tasks,
        "train": _pack_examples(data.train),
        "test": _pack_examples(data.test),
        "shards": _pack_shards(data.shards),
        "validation": _pack_shards(data.validation),
        "owners": data.owners,
        "idle": data.idle,
    }


def unpack_data(packed: Mapping[str, Any]) -> FederatedData:
    """The data that `pack_data` packed; the examples stay on the same memory."""
    return FederatedData(
        packed["tasks"],
        _unpack_examples(packed["train"]),
        _unpack_examples(packed["test"]),
        Shards.of_sizes(*packed["shards"]),
        Shards.of_sizes(*packed["validation"]),
        packed["owners"],
        idle=packed["idle"],
    )


def _pack_examples(examples: Examples) -> list[np.ndarray]:
    return [tensor.cpu().numpy() for tensor in (examples.features, *examples.targets)]


def _unpack_examples(arrays: Sequence[np.ndarray]) -> Examples:
    features, *targets = (_tensor(array) for array in arrays)
    return Examples(features, tuple(targets))


def _pack_shards(shards: Shards) -> tuple[np.ndarray, np.ndarray]:
    return shards.indices.numpy(), shards.sizes


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor on the array's memory, or on a copy if it is not aligned as torch's: kernels might round differently."""
    return torch.from_numpy(array) if array.ctypes.data % _ALIGNMENT == 0 else torch.tensor(array)
