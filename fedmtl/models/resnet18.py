"""ResNet-18 with group norm, for small images.

He et al., "Deep Residual Learning for Image Recognition" (2016), with a 3x3 stem without pooling, as usual for CIFAR;
Wu and He, "Group Normalization" (2018), in place of batch norm, whose statistics do not average well over non-IID
clients (Hsieh et al., "The Non-IID Data Quagmire of Decentralized Machine Learning", 2020);
``norm = "batch"`` has it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.models.norms import BatchNorm2d, OutNorm, norm_of_rows
from fedmtl.models.shapes import image_shape
from fedmtl.tasks import Task


def resnet18(
    input_shape: Sequence[int],
    tasks: Sequence[Task],
    *,
    width: Annotated[int, Param("channels of the first stage; doubled at every stage", ge=1, source="paper")] = 64,
    groups: Annotated[int, Param("groups of a group norm; must divide the width", ge=1, source="paper")] = 32,
    norm: Annotated[Literal["group", "batch"], Param("norm after each convolution")] = "group",
    out_norm: OutNorm = "none",
) -> MultiTaskModel:
    """ResNet-18 with group norm and a 3x3 stem; for images."""
    depth, _, _ = image_shape(input_shape, "resnet18", 1)
    if norm == "group" and width % groups:
        raise ConfigError(f"model.groups = {groups} does not divide model.width = {width}")
    normed: Callable[[int], nn.Module] = BatchNorm2d if norm == "batch" else functools.partial(nn.GroupNorm, groups)
    layers: list[nn.Module] = [_convolution(depth, width, 3, 1), normed(width), nn.ReLU()]
    inputs = width
    for stage in range(4):
        outputs = width << stage
        stride = 1 if stage == 0 else 2
        layers += [_Block(inputs, outputs, stride, normed), _Block(outputs, outputs, 1, normed)]
        inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), *norm_of_rows(out_norm, inputs)]
    return MultiTaskModel(nn.Sequential(*layers), inputs, tasks)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, normed: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride)
        self.first_norm = normed(outputs)
        self.second = _convolution(outputs, outputs, 3, 1)
        self.second_norm = normed(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_convolution(inputs, outputs, 1, stride), normed(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.first_norm(self.first(inputs)))
        hidden = self.second_norm(self.second(hidden))
        return F.relu(hidden + self.shortcut(inputs))
