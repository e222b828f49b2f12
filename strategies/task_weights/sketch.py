"""Server-side balancing from sketches: every product of two tasks' gradients, wherever the tasks live.

An extra of FedNTK-trace (:mod:`strategies.task_weights.fedntk_trace`). Beside the traces, a client c sends for each
task i that it owns a sketch of length m of its mean gradient over the N_c batches that it probed
(:mod:`fedmtl.balancing.sketch`). With the weights a_c of the aggregation, over the owners among the updates,

    g_i    <- beta g_i + (1 - beta) sum a_c N_c S_ci / sum a_c N_c      from 0, divided by 1 - beta^n_i when read
    M       = [<g_i, g_j>]                                              about the tasks' true products, shape [K, K]
    w       = a Gram weighting of M                                     Nash-MTL, FairGrad, CAGrad, UPGrad or MGDA
    omega_i = w_i sqrt(sum_j M_jj / sum_j w_j^2 M_jj)

The last line gives weights of any size a common one: weighted gradients are as long, in the mean square, as unweighted
ones. Equal w give ones, and ``w_i = 1/||g_i||`` gives NTKMTL's weights for p = 0.5. FedNTK-trace then divides by the
coverage and clips, as it does with its own. A task without a gradient has weight 1 and is not seen by the weighting.

Upload: 4 m bytes more for each owned task. Products are off by about sqrt(2/m) times the norms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fedmtl.balancing import build_balancer
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.errors import ConfigError
from fedmtl.protocol import Balancing, GlobalModel, Update
from fedmtl.randomness import derive_seed
from strategies.core.kinds import Aggregator
from strategies.core.part import Part

GramName = Literal["nash-mtl", "fairgrad", "cagrad", "upgrad", "mgda"]
"""Balancers that look at nothing but the Gram matrix."""


class SketchedGram(Part):
    """Keeps the tasks' sketched gradients, and weighs the tasks by their Gram matrix.

    Parameters
    ----------
    size
        m.
    weighting
        The rule, with its usual options.
    smoothing
        beta.

    Raises
    ------
    ConfigError
        If a package that the rule needs is not installed.

    Examples
    --------
    Two tasks of one client, whose sketches are orthogonal, and of which the first is twice as long:

    >>> import torch
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.task_weights.sketch import SketchedGram
    >>> gram = SketchedGram(size=2, weighting="mgda", smoothing=0.0)
    >>> gram.prepare(toy_model([0.0], heads=(0, 0)), seed=0)
    >>> gram.take([toy_update(0, tasks=(0, 1), task_sketches=torch.tensor([[2.0, 0.0], [0.0, 1.0]]))], shares=[1.0])
    >>> gram.gram
    tensor([[4., 0.],
            [0., 1.]], dtype=torch.float64)
    >>> [round(omega, 3) for omega in gram.omega()]
    [0.5, 2.0]
    """

    def __init__(self, size: int, weighting: GramName, smoothing: float) -> None:
        self.size = size
        self.smoothing = smoothing
        balancer = build_balancer(Balancing(weighting))
        assert isinstance(balancer, GramWeighting)
        self._rule = balancer
        self._seed = 0
        self._average = torch.zeros(0, size, dtype=torch.float64)
        self._seen: list[int] = []

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Nothing was seen; draw the run's projection."""
        tasks = len(model.layout.heads)
        self._seed = derive_seed(seed, "sketch")
        self._average = torch.zeros(tasks, self.size, dtype=torch.float64)
        self._seen = [0] * tasks

    @property
    def probe(self) -> dict[str, int]:
        """What clients need of it: m, and the seed of the projection."""
        return {"sketch": self.size, "sketch_seed": self._seed}

    def fault(self, update: Update) -> str | None:
        """Why an update cannot be what was asked for, or None. What is not finite is left out later, task by task."""
        sent = update.task_sketches
        expected = (len(update.tasks), self.size)
        if sent is None:
            return "lacks the sketches of its gradients"
        if sent.shape != expected or sent.dtype != torch.float32:
            return f"sketches are {sent.dtype} of shape {tuple(sent.shape)}, expected float32 of shape {expected}"
        return None

    def refuse(self, aggregator: Aggregator) -> None:
        """Refuse aggregators that give clients models of their own.

        Raises
        ------
        ConfigError
            With the reason.
        """
        if type(aggregator).model_for is not Aggregator.model_for:
            raise ConfigError(
                f"balancing.extra = 'sketch' with {type(aggregator).__name__}: clients start from models of their own, "
                "and gradients at different models have no Gram matrix; set balancing.extra = 'none'"
            )

    def take(self, updates: Sequence[Update], shares: Sequence[float]) -> None:
        """Pool the sketches of a server step; `shares` are the a_c N_c. The order of the updates does not matter."""
        ordered = sorted(zip(updates, shares, strict=True), key=lambda pair: pair[0].key)
        for task in range(len(self._seen)):
            rows = [(n, row) for update, n in ordered if (row := _row(update, task)) is not None]
            if (total := math.fsum(n for n, _ in rows)) > 0.0:
                pooled = torch.stack([row.double() * (n / total) for n, row in rows]).sum(0)
                self._average[task] = self.smoothing * self._average[task] + (1 - self.smoothing) * pooled
                self._seen[task] += 1

    @property
    def gram(self) -> Tensor:
        """M, float64, shape [K, K]; zeros for a task that was not seen."""
        corrections = [1 - self.smoothing**n if n else 1.0 for n in self._seen]
        rows = self._average / torch.tensor(corrections, dtype=torch.float64).unsqueeze(1)
        return rows @ rows.T

    def omega(self) -> list[float] | None:
        """The weights, before coverage and clip; None until every task was seen."""
        if not all(self._seen):
            return None
        M = self.gram
        omega = torch.ones(len(M), dtype=torch.float64)
        live = (M.diagonal() > 0).nonzero()[:, 0]
        if len(live):
            part = M[live][:, live]
            omega[live] = _common_length(self._rule.weigh(part, part.new_ones(len(live)), live.tolist()), part)
        return omega.tolist()

    def state_dict(self) -> dict[str, Any]:
        """The averages with their counts."""
        return {"average": self._average.clone(), "seen": list(self._seen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._average = state["average"].clone()
        self._seen = [int(value) for value in state["seen"]]


def _row(update: Update, task: int) -> Tensor | None:
    """The sketch that a client sent of a task; None if it owns it not, or sent none that is finite."""
    if update.task_sketches is None or task not in update.tasks:
        return None
    row = update.task_sketches[update.tasks.index(task)]
    return row if bool(row.isfinite().all()) else None


def _common_length(w: Tensor, gram: Tensor) -> Tensor:
    """The multiple of w for which the weighted gradients are as long as the unweighted, in the mean square.

    Ones if there is none: CAGrad's weights are 0 where the gradients cancel each other.
    """
    sizes = gram.diagonal()
    scaled = w * (sizes.sum() / (w.square() * sizes).sum()).sqrt()
    return scaled if bool(scaled.isfinite().all()) else torch.ones_like(w)
