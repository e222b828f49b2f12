"""Clients whose convolutions decay, and nothing else.

Down: the constant ``decay``. Up: nothing beside the update. The client's half is
:mod:`clients.policies.convolution_decay`.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.models.multitask import MultiTaskModel
from strategies.policies.local import LocalPolicy


class ConvolutionDecay(LocalPolicy):
    """Convolutions' weights decay (FedAT as FedQS's authors have it).

    Examples
    --------
    It needs a model with convolutions:

    >>> import torch
    >>> from fedmtl.models import build_model
    >>> from fedmtl.tasks import Task
    >>> from strategies.policies.convolution_decay import ConvolutionDecay
    >>> policy = ConvolutionDecay(decay=0.05)
    >>> policy.examine(build_model("linear", {}, (2,), [Task("height", "regression")], seed=0), torch.zeros(1, 2))
    Traceback (most recent call last):
        ...
    fedmtl.errors.ConfigError: the decay of convolutions (local = 'l2_conv') does nothing in a model without ...
    """

    name = "convolution-decay"

    def __init__(self, *, decay: Annotated[float, Param("factor of the decay", ge=0)] = 0.1) -> None:
        self.constants = {"decay": decay}

    def examine(self, model: MultiTaskModel, features: Tensor) -> None:
        """Refuse a model without convolutions, where it would do nothing."""
        if not any(parameter.dim() == 4 for parameter in model.backbone.parameters()):
            raise ConfigError(
                "the decay of convolutions (local = 'l2_conv') does nothing in a model without them: use model.name = "
                "'lenet' or 'resnet18', or local = 'prox'"
            )
