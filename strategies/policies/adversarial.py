"""Clients that train on adversarial examples.

Down: the constants ``rho``, ``attack_steps``, ``step_size`` and ``norm``. Up: nothing beside the update. The client's
half is :mod:`clients.policies.adversarial`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.models.multitask import MultiTaskModel
from strategies.policies.local import LocalPolicy

Radius = Annotated[float, Param("radius of the ball around an example, units of a feature", ge=0)]
AttackSteps = Annotated[int, Param("steps of the ascent", ge=1)]
StepSize = Annotated[float, Param("a step of the ascent, share of rho", gt=0)]
BallNorm = Annotated[Literal["inf", "two"], Param("of the ball: maximum or Euclidean norm")]


class Adversarial(LocalPolicy):
    """Clients train on adversarial examples (FAL).

    Examples
    --------
    It needs features with a neighbourhood:

    >>> import torch
    >>> from fedmtl.models import build_model
    >>> from fedmtl.tasks import Task
    >>> from strategies.policies.adversarial import Adversarial
    >>> policy = Adversarial(rho=0.03)
    >>> policy.constants
    {'rho': 0.03, 'attack_steps': 7, 'step_size': 0.25, 'norm': 'inf'}
    >>> model = build_model("linear", {}, (2,), [Task("height", "regression")], seed=0)
    >>> policy.examine(model, torch.tensor([[5, 8]]))
    Traceback (most recent call last):
        ...
    fedmtl.errors.ConfigError: the clients' policy 'adversarial' needs real features, but these are ...
    """

    name = "adversarial"

    def __init__(
        self, *, rho: Radius = 0.1, attack_steps: AttackSteps = 7, step_size: StepSize = 0.25, norm: BallNorm = "inf"
    ) -> None:
        self.constants = {"rho": rho, "attack_steps": attack_steps, "step_size": step_size, "norm": norm}

    def examine(self, model: MultiTaskModel, features: Tensor) -> None:
        """Refuse tokens, which are no real numbers."""
        if not features.is_floating_point():
            raise ConfigError(
                f"the clients' policy {self.name!r} needs real features, but these are {features.dtype}: tokens have "
                "no neighbourhood; choose another strategy, or data.source"
            )
