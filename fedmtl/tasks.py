"""Tasks: what a head predicts, how it is trained and how it is judged."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmtl.errors import ConfigError
from fedmtl.text import is_valid_text

TaskKind = Literal["classification", "binary", "regression"]
LossName = Literal["cross_entropy", "binary_cross_entropy", "squared_error", "absolute_error"]
MetricName = Literal["accuracy", "mse", "mae"]

_LOSSES: dict[TaskKind, tuple[LossName, ...]] = {
    "classification": ("cross_entropy",),
    "binary": ("binary_cross_entropy",),
    "regression": ("squared_error", "absolute_error"),
}
_METRICS: dict[LossName, MetricName] = {
    "cross_entropy": "accuracy",
    "binary_cross_entropy": "accuracy",
    "squared_error": "mse",
    "absolute_error": "mae",
}

_TAKEN = frozenset(dir(nn.ModuleDict()))
"""What no module in a dictionary of modules can be called: it would hide an attribute of the dictionary."""

_SAFE = re.compile(r"[\w-][\w -]{0,99}")
_MADE = re.compile(r".*-[0-9a-f]{16}")


@dataclass(frozen=True)
class Task:
    """One task: a head of `outputs` units, a loss, and a metric with a direction.

    Parameters
    ----------
    name
        The name of the task and of the target column it reads: any text that is valid Unicode.
    kind
        ``"classification"`` (targets are class numbers, int64 of shape [n]), ``"binary"`` (0 or 1, float32 of
        shape [n]) or ``"regression"`` (float32 of shape [n]).
    outputs
        Units of the head: the number of classes, and 1 for the other kinds.
    loss
        Default: cross-entropy, binary cross-entropy on logits, squared error.
    loss_factor
        A constant factor of the loss (spec of the digits benchmark: tasks of different scales).
    classes
        What the data call the classes, by number; empty, or fewer than outputs, where nobody knows.
    deviation
        What a regression's targets were divided by. The loss is that of the scaled targets; the metric is in the units
        that the targets had before.
    """

    name: str
    kind: TaskKind
    outputs: int = 1
    loss: LossName | None = None
    loss_factor: float = 1.0
    classes: tuple[str, ...] = ()
    deviation: float = 1.0

    def __post_init__(self) -> None:
        if not is_valid_text(self.name):
            raise ConfigError(f"task {self.name!r}: its name is no valid Unicode text, which no table can hold")
        allowed = _LOSSES[self.kind]
        if self.loss is None:
            object.__setattr__(self, "loss", allowed[0])
        elif self.loss not in allowed:
            raise ConfigError(
                f"task {self.name!r}: loss {self.loss!r} does not fit kind {self.kind!r}; "
                f"use one of {', '.join(allowed)}"
            )
        if self.kind == "classification" and self.outputs < 2:
            raise ConfigError(f"task {self.name!r}: a classification needs at least 2 classes, not {self.outputs}")
        if self.kind != "classification" and self.outputs != 1:
            raise ConfigError(f"task {self.name!r}: a {self.kind} task has 1 output, not {self.outputs}")

    @cached_property
    def key(self) -> str:
        """The name under which the task's head lies in a module: the task's own, if it is a plain one that torch takes.

        Of any other name that is its letters and digits with a fingerprint of the whole: ``"education.num"`` becomes
        ``"education-num-"`` and 16 digits, whatever the other tasks are. A name that looks as if it were made so has
        another one made of it, too, so that two tasks never share a key.
        """
        name = self.name
        if _SAFE.fullmatch(name) and name not in _TAKEN and not _MADE.fullmatch(name):
            return name
        words = re.sub(r"[^\w-]+", "-", name).strip("-")[:40]
        return f"{words}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"

    @property
    def metric(self) -> MetricName:
        """The name of the metric: accuracy in [0, 1], or a mean error."""
        assert self.loss is not None
        return _METRICS[self.loss]

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric."""
        return self.metric == "accuracy"

    def mean_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss over a batch, times the loss factor (a scalar tensor).

        Parameters
        ----------
        output
            Head output, shape [batch, outputs].
        target
            Targets, shape [batch].
        """
        if self.loss == "cross_entropy":
            loss = F.cross_entropy(output, target)
        elif self.loss == "binary_cross_entropy":
            loss = F.binary_cross_entropy_with_logits(output[:, 0], target)
        elif self.loss == "squared_error":
            loss = F.mse_loss(output[:, 0], target)
        else:
            loss = F.l1_loss(output[:, 0], target)
        return loss if self.loss_factor == 1.0 else loss * self.loss_factor

    def example_losses(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each example, times the loss factor, shape [batch]; their mean is `mean_loss`.

        Parameters
        ----------
        output
            Head output, shape [batch, outputs].
        target
            Targets, shape [batch].
        """
        if self.loss == "cross_entropy":
            losses = F.cross_entropy(output, target, reduction="none")
        elif self.loss == "binary_cross_entropy":
            losses = F.binary_cross_entropy_with_logits(output[:, 0], target, reduction="none")
        elif self.loss == "squared_error":
            losses = (output[:, 0] - target).square()
        else:
            losses = (output[:, 0] - target).abs()
        return losses * self.loss_factor

    def loss_and_slope(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """What `mean_loss` returns and its derivative with respect to the output, written out; builds no graph.

        With B examples and loss factor c the slope is ``c (softmax(o) - onehot(y)) / B``, ``c (sigmoid(o) - y) / B``,
        ``2c (o - y) / B`` or ``c sign(o - y) / B``. On small batches this costs a third of what a graph does.

        Parameters
        ----------
        output
            Head output, shape [batch, outputs].
        target
            Targets, shape [batch].

        Returns
        -------
        loss, slope
            A scalar tensor, and a tensor of the shape of `output`.
        """
        scale = self.loss_factor / output.shape[0]
        if self.loss == "cross_entropy":
            log_probability = torch.log_softmax(output, 1)
            loss = F.nll_loss(log_probability, target)
            slope = log_probability.exp_()
            slope.scatter_(1, target.unsqueeze(1), -1.0, reduce="add").mul_(scale)
        elif self.loss == "binary_cross_entropy":
            logit = output[:, 0]
            loss = F.binary_cross_entropy_with_logits(logit, target)
            slope = (torch.sigmoid(logit) - target).mul_(scale).unsqueeze(1)
        elif self.loss == "squared_error":
            error = output[:, 0] - target
            loss = torch.dot(error, error) / len(error)
            slope = error.mul_(2 * scale).unsqueeze(1)
        else:
            error = output[:, 0] - target
            loss = error.abs().mean()
            slope = error.sign_().mul_(scale).unsqueeze(1)
        return (loss if self.loss_factor == 1.0 else loss * self.loss_factor), slope

    def scores(self, output: Tensor, target: Tensor) -> Tensor:
        """The metric of each example: 1 for a correct answer, or its squared or absolute error (float64, [batch]).

        Errors are in the targets' own units, or the square of these, whatever `deviation` they were scaled by.
        Outputs that are no numbers answer nothing right.
        """
        if self.kind == "classification":
            return ((output.argmax(1) == target) & ~output.isnan().any(1)).double()
        if self.kind == "binary":
            return torch.where(target > 0.5, output[:, 0] > 0, output[:, 0] <= 0).double()
        error = (output[:, 0].double() - target.double()) * self.deviation
        return error.square() if self.loss == "squared_error" else error.abs()

    def score_sum(self, output: Tensor, target: Tensor) -> Tensor:
        """Sum of the metric over examples: correct answers, or squared or absolute errors (a float64 scalar tensor)."""
        return self.scores(output, target).sum()
