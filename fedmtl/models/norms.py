"""Batch norm for federated training.

"Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift" (arXiv 1502.03167). In
training each unit is normalised by its mean and variance in the batch, and these move the statistics, shape [units],
by which it is normalised in prediction. The statistics travel with the model and are averaged as the values that they
are (docs/decisions/0011-statistics-are-values.md). A client's last batch may have a single example, in which a unit has
one value and no variance: it is normalised by the statistics, as in prediction, and leaves them as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import batchnorm

from fedmtl.components import Param

NormName = Literal["none", "batch"]
HiddenNorm = Annotated[NormName, Param("batch norm in hidden layers, before each ReLU", source="paper")]
Model = TypeVar("Model", bound=nn.Module)
OutNorm = Annotated[NormName, Param("batch norm of the representation, as FedGELA's authors have it")]


def _normalised(norm: nn.BatchNorm1d | nn.BatchNorm2d, inputs: Tensor) -> Tensor | None:
    """As in prediction, in prediction and where a unit has a single value, so no variance; None anywhere else."""
    if norm.training and inputs.numel() > inputs.shape[1]:
        return None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    variance = norm.running_var.clamp(min=0.0)
    return F.batch_norm(inputs, norm.running_mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)


class BatchNorm1d(nn.BatchNorm1d):
    """Of rows, shape [batch, units]. A single value is normalised by the statistics, which stay as they are."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The inputs, normalised unit by unit."""
        found = _normalised(self, inputs)
        return super().forward(inputs) if found is None else found


class BatchNorm2d(nn.BatchNorm2d):
    """Of channels, shape [batch, units, height, width]; else as :class:`BatchNorm1d`."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The inputs, normalised channel by channel."""
        found = _normalised(self, inputs)
        return super().forward(inputs) if found is None else found


def norm_of_rows(name: NormName, units: int) -> list[nn.Module]:
    """The norm of that name for rows of so many units, or nothing."""
    return [BatchNorm1d(units)] if name == "batch" else []


def norm_of_channels(name: NormName, channels: int) -> list[nn.Module]:
    """The norm of that name for so many channels, or nothing."""
    return [BatchNorm2d(channels)] if name == "batch" else []


def bearing_single_values(model: Model) -> Model:
    """The model, whose norms are torch's own, takes batches of one example in which a unit or a group has one value.

    Torch's batch norm refuses them in training and its group norm always. A batch norm then does as
    :class:`BatchNorm1d` does; without statistics, and in a group norm, what is left of a single value is the bias.
    """
    for module in model.modules():
        if isinstance(module, batchnorm._BatchNorm) and not isinstance(module, BatchNorm1d | BatchNorm2d):
            module.forward = functools.partial(_batch_norm, module)  # type: ignore[method-assign]
        elif type(module) is nn.GroupNorm:
            module.forward = functools.partial(_group_norm, module)  # type: ignore[method-assign]
    return model


def _batch_norm(norm: batchnorm._BatchNorm, inputs: Tensor) -> Tensor:
    if inputs.numel() > inputs.shape[1]:
        return type(norm).forward(norm, inputs)
    if norm.running_mean is None or norm.running_var is None:
        # Torch's function without the check in front of it.
        return torch.batch_norm(inputs, norm.weight, norm.bias, None, None, True, 0.0, norm.eps, False)
    return F.batch_norm(inputs, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


def _group_norm(norm: nn.GroupNorm, inputs: Tensor) -> Tensor:
    if inputs.numel() > norm.num_groups:
        return type(norm).forward(norm, inputs)
    return torch.group_norm(inputs, norm.num_groups, norm.weight, norm.bias, norm.eps, False)


def norms_in(module: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    """The batch norms inside a module."""
    return [inner for inner in module.modules() if isinstance(inner, nn.BatchNorm1d | nn.BatchNorm2d)]


def measure_statistics(module: nn.Module, inputs: Tensor) -> None:
    """Put the mean and variance that units have on these examples, shape [n, ...], in place of the statistics.

    The module must be in training mode.
    """
    with _replacing(module), torch.no_grad():
        module(inputs)


@contextmanager
def _replacing(module: nn.Module) -> Iterator[None]:
    norms = norms_in(module)
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
