"""Server optimisers: what aggregation proposes is a pseudo-gradient, and the server takes its step with an optimiser.

"Adaptive Federated Optimization" (arXiv 2003.00295) and "Measuring the Effects of Non-Identical Data Distribution for
Federated Visual Classification" (arXiv 1909.06335). With the current model w, the proposed one and their difference
``D = proposed - w`` (all of shape [P]), an optimiser turns the proposed model into the next one, in place. Its state is
one to three vectors of that shape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from fedmtl.components import Param
from fedmtl.protocol import GlobalModel
from strategies.core.part import Part

ROOT_OFFSET = Param("added to the root", gt=0)
MOMENT1 = Param("b1, decay of the first moment", ge=0, lt=1)
MOMENT2 = Param("b2, decay of the second moment", ge=0, lt=1)
SERVER_MOMENTUM = Param("momentum of the server's step", ge=0, lt=1)
Beta = Annotated[float, Param("decay of a moment", ge=0, lt=1)]
RootOffset = Annotated[float, ROOT_OFFSET]


class ServerOptimizer(Part, ABC):
    """Takes the server's step. It sees the trainable part of the vector only: batch-norm statistics are averaged."""

    @abstractmethod
    def step(self, current: Tensor, proposed: Tensor, rate: float | None = None) -> None:
        """Write the next vector over `proposed`.

        Parameters
        ----------
        current
            w, shape [P]; it is not written to.
        proposed
            ``w + D``, shape [P].
        rate
            eta_g of this step; the optimiser's own if not given.
        """


class SGD(ServerOptimizer):
    """Heavy ball: ``v <- beta v + D``, ``w <- w + eta_g v`` (FedAvgM).

    With ``beta = 0`` and ``eta_g = 1`` the next model is the proposed one bit for bit.

    Parameters
    ----------
    rate
        eta_g.
    momentum
        beta.

    Examples
    --------
    With momentum, what was proposed before moves the model on:

    >>> import torch
    >>> from fedmtl.toy import toy_model
    >>> from strategies.aggregators.server_optimizers import SGD
    >>> optimizer, w = SGD(momentum=0.5), torch.zeros(2)
    >>> optimizer.prepare(toy_model(w), seed=0)
    >>> for change in ([2.0, 4.0], [0.0, 0.0]):
    ...     proposed = w + torch.tensor(change)
    ...     optimizer.step(w, proposed)
    ...     proposed
    tensor([2., 4.])
    tensor([1., 2.])
    """

    def __init__(self, rate: float = 1.0, momentum: float = 0.0) -> None:
        self.rate = rate
        self.momentum = momentum
        self._v = torch.zeros(0)

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Start at ``v = 0``."""
        self._v = torch.zeros_like(model.vector[model.layout.trainable])

    def step(self, current: Tensor, proposed: Tensor, rate: float | None = None) -> None:
        """Move `proposed` by the heavy ball, in place."""
        eta = self.rate if rate is None else rate
        D = proposed - current
        # w + eta (beta v + D), written as a change of w + D, so that nothing is rounded where nothing is changed.
        proposed.add_(self._v, alpha=eta * self.momentum).add_(D, alpha=eta - 1.0)
        self._v.mul_(self.momentum).add_(D)

    def state_dict(self) -> dict[str, Any]:
        """The velocity v."""
        return {"v": self._v.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._v = state["v"].clone()


class Adam(ServerOptimizer):
    """``m <- b1 m + (1 - b1) D``, ``v <- b2 v + (1 - b2) D^2``, ``w <- w + eta_g m / (sqrt(v) + eps)`` (FedAdam).

    Parameters
    ----------
    rate, beta1, beta2, eps
        eta_g, b1, b2 and eps.
    v0
        Every entry of v at the start; None for ``eps^2``.
    bias_correction
        Divide m by ``1 - b1^t`` and v by ``1 - b2^t`` at the t-th step; it presumes ``v0 = 0``.
    look_ahead
        Use ``b1 m + (1 - b1) D`` with the new m in place of m, as Nesterov's momentum does (FedAC).

    Examples
    --------
    A first step is as long in every entry, however small the changes are:

    >>> import torch
    >>> from fedmtl.toy import toy_model
    >>> from strategies.aggregators.server_optimizers import Adam
    >>> optimizer, w = Adam(rate=0.5, eps=0.0, bias_correction=True), torch.zeros(3)
    >>> optimizer.prepare(toy_model(w), seed=0)
    >>> proposed = torch.tensor([1.0, -0.01, 100.0])
    >>> optimizer.step(w, proposed)
    >>> proposed.round(decimals=4)
    tensor([ 0.5000, -0.5000,  0.5000])
    """

    def __init__(
        self,
        rate: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.99,
        eps: float = 1e-3,
        *,
        v0: float | None = None,
        bias_correction: bool = False,
        look_ahead: bool = False,
    ) -> None:
        self.rate = rate
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self.v0 = eps**2 if v0 is None else v0
        self.bias_correction = bias_correction
        self.look_ahead = look_ahead
        self.steps = 0
        self._m = torch.zeros(0)
        self._v = torch.zeros(0)

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Start at ``m = 0`` and ``v = v0``."""
        self.steps = 0
        self._m = torch.zeros_like(model.vector[model.layout.trainable])
        self._v = torch.full_like(self._m, self.v0)

    def step(self, current: Tensor, proposed: Tensor, rate: float | None = None) -> None:
        """Move `proposed` by Adam's step, in place."""
        eta = self.rate if rate is None else rate
        D = proposed - current
        self.steps += 1
        self._m.mul_(self.beta1).add_(D, alpha=1.0 - self.beta1)
        root = self._second_moment(D).sqrt()
        if self.bias_correction:
            eta /= 1.0 - self.beta1**self.steps
            root /= (1.0 - self.beta2**self.steps) ** 0.5
        root += self.eps
        m = self._m
        if self.look_ahead:
            m = D.mul_(1.0 - self.beta1).add_(m, alpha=self.beta1)
        torch.addcdiv(current, m, root, value=eta, out=proposed)

    def _second_moment(self, D: Tensor) -> Tensor:
        """Take D into v, and return what stands under the root."""
        return self._v.mul_(self.beta2).addcmul_(D, D, value=1.0 - self.beta2)

    def state_dict(self) -> dict[str, Any]:
        """Moments and the number of steps."""
        return {"m": self._m.clone(), "v": self._v.clone(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._m, self._v, self.steps = state["m"].clone(), state["v"].clone(), int(state["steps"])


class Yogi(Adam):
    """As Adam, with ``v <- v - (1 - b2) D^2 sign(v - D^2)``, which forgets large steps more slowly (FedYogi).

    Examples
    --------
    After a huge change small ones hardly move the model, and for longer than with Adam:

    >>> import torch
    >>> from fedmtl.toy import toy_model
    >>> from strategies.aggregators.server_optimizers import Adam, Yogi
    >>> for optimizer in (Adam(rate=1.0, beta1=0.0, beta2=0.5), Yogi(rate=1.0, beta1=0.0, beta2=0.5)):
    ...     optimizer.prepare(toy_model([0.0]), seed=0)
    ...     for change in (100.0, 1.0, 1.0, 1.0):
    ...         proposed = torch.tensor([change])
    ...         optimizer.step(torch.zeros(1), proposed)
    ...     proposed.round(decimals=3)
    tensor([0.0400])
    tensor([0.0140])
    """

    def _second_moment(self, D: Tensor) -> Tensor:
        square = D.square()
        return self._v.addcmul_(square, torch.sign(self._v - square), value=self.beta2 - 1.0)


class AMSGrad(Adam):
    """As Adam, with ``v_hat <- max(v_hat, v)`` under the root, so that no entry's step ever grows again (FADAS).

    Examples
    --------
    After a huge change the steps stay small; with Adam they grow again:

    >>> import torch
    >>> from fedmtl.toy import toy_model
    >>> from strategies.aggregators.server_optimizers import Adam, AMSGrad
    >>> for optimizer in (Adam(rate=1.0, beta1=0.0, beta2=0.5), AMSGrad(rate=1.0, beta1=0.0, beta2=0.5)):
    ...     optimizer.prepare(toy_model([0.0]), seed=0)
    ...     for change in (10.0, *[1.0] * 10):
    ...         proposed = torch.tensor([change])
    ...         optimizer.step(torch.zeros(1), proposed)
    ...     proposed.round(decimals=3)
    tensor([0.9760])
    tensor([0.1410])
    """

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Start at ``m = 0`` and ``v = v_hat = v0``."""
        super().prepare(model, seed)
        self._v_hat = self._v.clone()

    def _second_moment(self, D: Tensor) -> Tensor:
        torch.maximum(self._v_hat, super()._second_moment(D), out=self._v_hat)
        return self._v_hat

    def state_dict(self) -> dict[str, Any]:
        """Moments, the largest second moment and the number of steps."""
        return super().state_dict() | {"v_hat": self._v_hat.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        super().load_state_dict(state)
        self._v_hat = state["v_hat"].clone()
