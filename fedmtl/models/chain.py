"""Chains of layers, whose hidden units can be put in another order."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from fedmtl.errors import ConfigError
from fedmtl.models.shapes import Flatten

_SHAPELESS = (Flatten, nn.Flatten, nn.MaxPool2d)
_LAYERS = (nn.Linear, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class HiddenLayer(NamedTuple):
    """A linear layer or a convolution, and the batch norms of its units, by their names in the backbone."""

    name: str
    norms: tuple[str, ...]


def hidden_layers(backbone: nn.Module) -> list[HiddenLayer]:
    """The layers with units, in order; none where the heads read the features themselves.

    Raises
    ------
    ConfigError
        If the backbone is no chain of layers, each with a ReLU after it.
    """
    found: list[HiddenLayer] = []
    waiting, units = False, 0  # for the ReLU of the last layer, and its size
    modules = list(backbone.named_children()) if isinstance(backbone, nn.Sequential) else [("", backbone)]
    for name, module in modules:
        if isinstance(module, _LAYERS) and not waiting:
            found.append(HiddenLayer(name, ()))
            waiting, units = True, module.weight.shape[0]
        elif isinstance(module, _NORMS) and found and module.num_features == units:
            found[-1] = HiddenLayer(found[-1].name, (*found[-1].norms, name))
        elif isinstance(module, nn.ReLU) and waiting:
            waiting = False
        elif not isinstance(module, _SHAPELESS):
            raise _no_chain(module)
    if waiting:
        raise _no_chain(backbone)
    return found


def _no_chain(module: nn.Module) -> ConfigError:
    return ConfigError(
        "units can be matched in chains of linear layers and convolutions with ReLU, with or without batch norm, not "
        f"in this model ({type(module).__name__}): use model.name = 'mlp' or 'lenet', or strategy.match = 'none'"
    )
