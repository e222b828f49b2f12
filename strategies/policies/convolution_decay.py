"""Clients whose convolutions decay, and nothing else."""

from __future__ import annotations

from torch import Tensor

from fedmtl.errors import ConfigError
from fedmtl.models.multitask import MultiTaskModel
from strategies.policies.local import LocalTechnique


class ConvolutionDecay(LocalTechnique):
    """Adds ``decay/2 ||w||^2`` for the convolutions' weights w; the client's half has the same name.

    Parameters
    ----------
    decay
        The factor.
    """

    def __init__(self, decay: float) -> None:
        super().__init__("convolution-decay", {"decay": decay})

    def examine(self, model: MultiTaskModel, features: Tensor) -> None:
        """Refuse a model without convolutions, where it would do nothing."""
        if not any(parameter.dim() == 4 for parameter in model.backbone.parameters()):
            raise ConfigError(
                "the decay of convolutions (local = 'l2_conv') does nothing in a model without them: use model.name = "
                "'lenet' or 'resnet18', or local = 'prox'"
            )
