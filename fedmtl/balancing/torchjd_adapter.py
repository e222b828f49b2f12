"""All that is used of torchjd, whose interface changes between minor releases: 0.18.0 and no other.

It ships the methods; what it lacks is added here: Gram matrices are brought to a common scale before they meet its
absolute tolerances, CAGrad's rescaling, generators for what draws, and a task's weight from a scalarised loss. It is
imported when a balancer that needs it is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from fedmtl.errors import ConfigError
from fedmtl.randomness import default_generators

REQUIREMENT = "torchjd[cagrad,quadprog-projector]==0.18.0"

GramMethod = Callable[[Tensor], Tensor]
"""From a Gram matrix, float64 of shape [k, k] with a positive diagonal, to weights, shape [k]."""

UPGradScale = Literal["cosines", "gram"]
"""Whether UPGrad's programmes are set up in unit gradients, or in the gradients as they are."""

_QUADPROG = "QuadprogProjector"


def _make(module: str, name: str, *arguments: Any, **options: Any) -> Any:
    """An instance of one of torchjd's classes."""
    try:
        return getattr(importlib.import_module(f"torchjd.{module}"), name)(*arguments, **options)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"this balancer needs torchjd: pip install '{REQUIREMENT}' ({error})") from None


def require() -> None:
    """For what is made only when the tasks are known: raise at once the error that it would raise then."""
    _make("aggregation", "SumWeighting")


@contextmanager
def _drawing_from(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Torch's own generators, which torchjd draws from, continue this one; afterwards they are as they were."""
    seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
    with default_generators(seed, device):
        yield


def _common_scale(gram: Tensor) -> Tensor:
    """``M / mean diag M``: weights of scale-free methods stay the same, absolute tolerances become relative."""
    return gram / gram.diagonal().mean()


def _cosines(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The Gram matrix of the unit gradients, shape [k, k], and the gradients' norms, shape [k]."""
    norms = gram.diagonal().sqrt()
    return gram / norms.outer(norms), norms


def pcgrad() -> Callable[[Tensor, torch.Generator], Tensor]:
    """Projections of each gradient off those it conflicts with, in random order; their sum."""
    weighting: GramMethod = _make("aggregation", "PCGradWeighting")

    def weigh(gram: Tensor, generator: torch.Generator) -> Tensor:
        with _drawing_from(generator, gram.device):
            return weighting(_common_scale(gram))

    return weigh


def graddrop(leak: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    """From the Jacobian, shape [k, P], to a direction, shape [P]."""
    require()

    def combine(rows: Tensor, generator: torch.Generator) -> Tensor:
        aggregator: GramMethod = _make("aggregation", "GradDrop", leak=rows.new_full((len(rows),), leak))
        with _drawing_from(generator, rows.device):
            return aggregator(rows)

    return combine


def cagrad(c: float, rescale: bool) -> GramMethod:
    """``g_0 + c ||g_0|| g_w / ||g_w||``, over ``1 + c^2`` if it is rescaled, which torchjd leaves out."""
    weighting: GramMethod = _make("aggregation", "CAGradWeighting", c=c, norm_eps=1e-8)
    return lambda gram: weighting(_common_scale(gram)) / (1 + c * c if rescale else 1)


def imtl_g() -> GramMethod:
    """``M^+ sqrt(diag M)`` over its sum, by way of the cosines' pseudo-inverse.

    The cosines are float32, as the gradients are: the pseudo-inverse cuts off what is below its number format's
    precision, and so the arithmetic's noise where gradients are linearly dependent.
    """
    weighting: GramMethod = _make("aggregation", "IMTLGWeighting")

    def weigh(gram: Tensor) -> Tensor:
        cosines, norms = _cosines(gram)
        weights = weighting(cosines.float()).double() / norms
        total = weights.sum()
        return weights / total if total.abs() > 1e-6 * weights.abs().sum() else torch.zeros_like(weights)

    return weigh


class GradVac:
    """Gradients turned towards each other until they meet a running mean of their cosine; their sum.

    Examples
    --------
    Gradients with the cosine 0.8 stay as they are; then orthogonal ones are turned to the mean of the cosines so far.

    >>> import torch
    >>> from fedmtl.balancing.torchjd_adapter import GradVac
    >>> weigh = GradVac(beta=0.5)
    >>> generator = torch.Generator().manual_seed(0)
    >>> weigh(torch.tensor([[1.0, 0.8], [0.8, 1.0]]), generator)
    tensor([1., 1.])
    >>> weigh(torch.eye(2), generator)
    tensor([1.4364, 1.4364])
    """

    def __init__(self, beta: float) -> None:
        self._weighting = _make("aggregation", "GradVacWeighting", beta=beta)

    def reset(self) -> None:
        """Forget the averages of the cosines."""
        self._weighting.reset()

    def __call__(self, gram: Tensor, generator: torch.Generator) -> Tensor:
        """The weights of the tasks, shape [k]."""
        with _drawing_from(generator, gram.device):
            weights: Tensor = self._weighting(_common_scale(gram))
        return weights


def aligned_mtl(scale: Literal["min", "median", "rmse"]) -> GramMethod:
    """``sqrt(lambda_min) V diag(lambda^-1/2) V^T pref``; in float32, whose precision says what counts as 0."""
    weighting: GramMethod = _make("aggregation", "AlignedMTLWeighting", scale_mode=scale)
    return lambda gram: weighting(_common_scale(gram).float()).double()


def upgrad(eps: float, scale: UPGradScale) -> GramMethod:
    """Mean of the gradients' projections on the dual cone.

    In unit gradients (``"cosines"``), where `eps` on the diagonal weighs the same beside every task; the k projections
    of ``g_i / k`` are then those of ``||g_i|| / k`` unit gradients. Or (``"gram"``) as torchjd does by itself.
    """
    if scale == "gram":
        own: GramMethod = _make("aggregation", "UPGradWeighting", projector=_make("linalg", _QUADPROG, reg_eps=eps))
        return own
    projector = _make("linalg", _QUADPROG, norm_eps=0.0, reg_eps=eps)

    def weigh(gram: Tensor) -> Tensor:
        cosines, norms = _cosines(gram)
        preference = norms / norms.mean()
        weighting: GramMethod = _make("aggregation", "UPGradWeighting", pref_vector=preference, projector=projector)
        return weighting(cosines) * norms.mean() / (norms * len(norms))

    return weigh


class SDMGrad:
    """Weights from the product of two batches' Jacobians, carried on from step to step.

    Examples
    --------
    A long gradient in conflict with a short one, the same in both batches:

    >>> import torch
    >>> from fedmtl.balancing.torchjd_adapter import SDMGrad
    >>> rows = torch.tensor([[10.0, 0.0], [-0.6, 0.8]], dtype=torch.float64)
    >>> weigh = SDMGrad(lam=0.3, rate=10.0, momentum=0.5, iterations=20)
    >>> weigh(rows @ rows.T).round(decimals=2)
    tensor([0.1200, 0.8800], dtype=torch.float64)
    """

    def __init__(self, lam: float, rate: float, momentum: float, iterations: int) -> None:
        self._weighting = _make(
            "aggregation", "SDMGradWeighting", lr=rate, momentum=momentum, n_iter=iterations, lambda_=lam
        )

    def reset(self) -> None:
        """Start from equal weights."""
        self._weighting.reset()

    def __call__(self, product: Tensor) -> Tensor:
        """``(w + lam / k) / (1 + lam)`` from ``J_1 J_2^T``, shape [k, k]."""
        scale = float(product.diagonal().clamp_min(0.0).sqrt().mean()) ** 2
        # torchjd adds 1e-8 to this scale before it divides by it, which counts beside small gradients alone.
        weights: Tensor = self._weighting(product / scale if 0.0 < scale < 1e-4 else product)
        return weights


class MoDo:
    """``w <- proj(w - gamma M w)`` on the simplex, carried on from step to step.

    Examples
    --------
    Step by step towards MGDA's weights:

    >>> import torch
    >>> from fedmtl.balancing.torchjd_adapter import MoDo
    >>> rows = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    >>> weigh = MoDo(gamma=0.1)
    >>> weights = [weigh(rows @ rows.T).round(decimals=3) for _ in range(100)]
    >>> weights[0], weights[-1]
    (tensor([0.5250, 0.4750]), tensor([0.6000, 0.4000]))
    """

    def __init__(self, gamma: float) -> None:
        self._weighting = _make("aggregation", "MoDoWeighting", gamma=gamma, rho=0.0)

    def reset(self) -> None:
        """Start from equal weights."""
        self._weighting.reset()

    def __call__(self, gram: Tensor) -> Tensor:
        """The weights of the tasks, shape [k]."""
        weights: Tensor = self._weighting(gram)
        return weights


def random() -> Callable[[int, torch.Generator], Tensor]:
    """Softmax of normal draws, for so many tasks."""
    weighting: GramMethod = _make("aggregation", "RandomWeighting")

    def weigh(tasks: int, generator: torch.Generator) -> Tensor:
        with _drawing_from(generator, torch.device("cpu")):
            return weighting(torch.empty(tasks, 0))

    return weigh


class Scalarized:
    """A scalarisation of the losses: a task's weight is the derivative with respect to its loss.

    Parameters
    ----------
    scalarizer
        One of torchjd's.
    rate
        Of Adam on the scalariser's own parameters, which descend the same scalar.

    Examples
    --------
    IMTL-L learns weights that bring all losses to 1:

    >>> import torch
    >>> from torchjd.scalarization import IMTLL
    >>> from fedmtl.balancing.torchjd_adapter import Scalarized
    >>> weigh = Scalarized(IMTLL(2), rate=0.1)
    >>> weights = [weigh(torch.tensor([0.5, 4.0])).round(decimals=2) for _ in range(200)]
    >>> weights[0], weights[-1]
    (tensor([1., 1.]), tensor([2.0000, 0.2500]))
    """

    def __init__(self, scalarizer: Any, rate: float = 0.0) -> None:
        self.scalarizer = scalarizer
        parameters = list(scalarizer.parameters())
        self._optimizer = torch.optim.Adam(parameters, lr=rate) if rate else None

    def __call__(self, losses: Tensor) -> Tensor:
        """The weights of the tasks, shape [k]."""
        with torch.enable_grad():
            values = losses.clone().requires_grad_()
            self.scalarizer(values).backward()
        if self._optimizer is not None:
            self._optimizer.step()
            self._optimizer.zero_grad()
        assert values.grad is not None
        return values.grad


def dwa(temperature: float) -> Scalarized:
    """Weights by the pace of the losses; ``scalarizer.step()`` ends a window."""
    return Scalarized(_make("scalarization", "DWA", temperature))


def uw(tasks: int, start: float, rate: float) -> Scalarized:
    """``sum_i (e^(-s_i) l_i + s_i) / 2`` with learned s."""
    scalarizer = _make("scalarization", "UW", tasks)
    torch.nn.init.constant_(scalarizer.log_var, start)
    return Scalarized(scalarizer, rate)


def imtl_l(tasks: int, rate: float) -> Scalarized:
    """``sum_i (e^(s_i) l_i - s_i)`` with learned s."""
    return Scalarized(_make("scalarization", "IMTLL", tasks), rate)


def famo(minima: Tensor, rate: float, decay: float) -> Scalarized:
    """``c sum_i z_i log(l_i - b_i)``; ``scalarizer.update(losses)`` learns z from the losses after the step."""
    return Scalarized(_make("scalarization", "FAMO", len(minima), minima, rate, decay))
