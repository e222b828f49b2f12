"""How long a training step takes on a GPU: the roofline estimate from counted work.

S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore architectures",
Communications of the ACM 52(4), 2009: a computation is bound either by arithmetic or by memory traffic.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from simulations.devices.catalogue import Gpu

CONTEXT_BYTES = 0.5e9
"""What the driver's context and the libraries of a process take of a GPU's memory."""


@dataclass(frozen=True)
class StepCost:
    """The work of one training step.

    Attributes
    ----------
    flops
        Floating-point operations of the matrix products and convolutions, forward and backward.
    bytes_moved
        Bytes that the kernels read and write, if nothing stays in a cache between two of them.
    kernels
        Kernels that are launched.
    memory
        Bytes of memory at the peak: weights, gradients, the model that the order started from, buffers, the batch, and
        what the forward pass saves for the backward pass.
    """

    flops: float
    bytes_moved: float
    kernels: int
    memory: float

    def seconds(self, gpu: Gpu, *, efficiency: float, launch_seconds: float, tensor_cores: bool = False) -> float:
        """``max(flops / (peak * efficiency), bytes / bandwidth) + kernels * launch_seconds * host``.

        Parameters
        ----------
        gpu
            The device.
        efficiency
            Share of the peak that matrix products reach, in (0, 1].
        launch_seconds
            Seconds to launch a kernel from a desktop's processor.
        tensor_cores
            Whether tensor cores do the matrix products, where the GPU has them.
        """
        peak = gpu.tensor_peak if tensor_cores and gpu.tensor_peak is not None else gpu.peak
        work = max(self.flops / (peak * efficiency), self.bytes_moved / gpu.bandwidth)
        return work + self.kernels * launch_seconds * gpu.host

    def fits(self, gpu: Gpu) -> bool:
        """Whether the step's memory, with that of the process itself, fits the device's."""
        return self.memory + CONTEXT_BYTES <= gpu.memory


def count_step(model: nn.Module, batch: Tensor) -> StepCost:
    """Count the work of a forward and backward pass over a batch, and of the update in place.

    Nothing is computed: a copy of the model runs on tensors without content, and the model itself stays as it is.

    Parameters
    ----------
    model
        Maps a batch to a tensor, or to several.
    batch
        Inputs, shape [batch, ...]; only shape and type matter.
    """
    ghost = copy.deepcopy(model).to("meta").train()
    inputs = batch.to("meta")
    parameters = [p for p in ghost.parameters() if p.requires_grad]
    held = _storages([*ghost.parameters(), *ghost.buffers(), inputs])
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        saved.update(_storages([tensor]))
        return tensor

    flop_counter = FlopCounterMode(display=False)
    with flop_counter, _Traffic() as traffic:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = [output for output in tree_leaves(ghost(inputs)) if isinstance(output, Tensor)]
        gradients = torch.autograd.grad(
            outputs, parameters, grad_outputs=[torch.empty_like(o) for o in outputs], allow_unused=True
        )
    touched = _nbytes([gradient for gradient in gradients if gradient is not None])
    activations = sum(size for storage, size in saved.items() if storage not in held)
    return StepCost(
        flops=float(flop_counter.get_total_flops()),
        # One fused update: it reads weights and gradients and writes weights.
        bytes_moved=float(traffic.bytes + 3 * touched),
        kernels=traffic.kernels + 1,
        memory=float(sum(held.values()) + 2 * _nbytes(parameters) + activations),
    )


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the kernels that run and the bytes they read and write; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.kernels += 1
            self.bytes += _nbytes([t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)])
        return result


def _nbytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _storages(tensors: Sequence[Tensor]) -> dict[int, int]:
    """Bytes of each distinct storage behind the tensors."""
    return {storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
