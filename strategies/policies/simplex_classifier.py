"""Classifiers that are frozen to the corners of a simplex (an equiangular tight frame).

Down: the classifiers, in the model that the run starts from, and the constant ``temperature``. Up: nothing beside the
update. The client's half is :mod:`clients.policies.simplex_classifier`.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.protocol import GlobalModel
from fedmtl.randomness import torch_generator
from strategies.policies.local import LocalPolicy

Temperature = Annotated[float, Param("T, divides the logits", gt=0, source="authors' code")]


class SimplexClassifier(LocalPolicy):
    """Nobody trains the classifiers, and logits follow a client's own classes (FedGELA).

    The heads of all tasks with classes are set at the start; clients neither train nor change them.

    Examples
    --------
    Three classes are as far apart as three directions can be:

    >>> import torch
    >>> from fedmtl.models import build_model
    >>> from fedmtl.parameters import ParameterLayout
    >>> from fedmtl.protocol import GlobalModel
    >>> from fedmtl.tasks import Task
    >>> from strategies.policies.simplex_classifier import SimplexClassifier
    >>> network = build_model("mlp", {"hidden": [4]}, (2,), [Task("kind", "classification", outputs=3)], seed=0)
    >>> layout = ParameterLayout.of(network)
    >>> start = SimplexClassifier().initial(GlobalModel(0, layout.pack(network), layout), seed=0)
    >>> [head] = layout.heads
    >>> weight = start.vector[head][:12].view(3, 4)
    >>> (weight @ weight.T).round(decimals=4)
    tensor([[ 1.0000, -0.5000, -0.5000],
            [-0.5000,  1.0000, -0.5000],
            [-0.5000, -0.5000,  1.0000]])
    """

    name = "simplex-classifier"

    def __init__(self, *, temperature: Temperature = 0.2) -> None:
        self.constants = {"temperature": temperature}

    def initial(self, model: GlobalModel, seed: int) -> GlobalModel:
        """The model with M as the weight and 0 as the bias of each head of several outputs.

        Raises
        ------
        ConfigError
            If no task has classes, a task has more classes than the representation has entries, or there is no backbone
            that could be trained.
        """
        layout, vector = model.layout, model.vector.clone()
        if layout.shared.start == layout.shared.stop:
            raise ConfigError(
                "a model without a backbone has nothing to train beside frozen heads: use another model.name"
            )
        found = not layout.entries  # a layout without names has no heads to be found
        for task, head in enumerate(layout.heads):
            entries = [entry for entry in layout.entries if head.start <= entry.start < head.stop]
            if not entries or entries[0].shape[0] == 1:
                continue
            weight = entries[0]
            classes, width = weight.shape
            if classes > width:
                raise ConfigError(
                    f"{weight.name} has {classes} classes on a representation of {width}: a simplex needs at least as "
                    "many entries as classes; use a wider last layer (model.hidden)"
                )
            found = True
            vector[head] = 0.0
            vector[weight.start : weight.stop] = simplex(width, classes, seed, task).T.flatten()
        if not found:
            raise ConfigError("strategy.name = 'fedgela' needs a task with classes, and none of tasks.names has any")
        return GlobalModel(model.version, vector, layout)


def simplex(width: int, classes: int, seed: int, task: int) -> Tensor:
    """``M = sqrt(C/(C-1)) P (Id - 1 1^T / C)``, shape [width, classes], with random orthonormal columns P.

    Its columns have norm 1, and the cosine of any two is ``-1/(C-1)``, the least that C directions can all have.
    """
    drawn = torch.randn(width, classes, generator=torch_generator(seed, "simplex", task), dtype=torch.float64)
    P, _ = torch.linalg.qr(drawn)
    centred = P - P.mean(1, keepdim=True)
    M: Tensor = math.sqrt(classes / (classes - 1)) * centred
    return M.float()
