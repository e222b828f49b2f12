"""FedNTK-trace: NTK task weights across clients, from numbers that add.

A method of this project; its weights are those of "NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from
Neural Tangent Kernel Perspective" (arXiv 2510.18258), from a statistic that federation can compute: the trace of a
task's kernel is the sum of the clients' traces, while its largest eigenvalue is not a function of theirs.

A client measures at the model that it was sent, over N_c batches of its own (:mod:`fedmtl.balancing.equal_probed`),
``S_ci = sum_j ||grad_theta l_i(batch_j)||^2`` for each task i that it owns. When a server step is taken with the
weights a_c of the strategy's aggregator, for each task of the K with an owner among the updates (sums over owners
unless said otherwise)

    lam_i   <- beta lam_i + (1 - beta) sum a_c S_ci / sum a_c N_c       from 0, divided by 1 - beta^n_i when read
    q_i     <- 0.9 q_i + 0.1 sum a_c / sum_all a_c                      from 1; a task without an owner has share 0
    omega_i  = clip((mean_j lam_j / lam_i)^p / max(q_i, q_min), 1/w_max, w_max)     once every task was seen, else 1

with n_i the updates of lam_i. The omega go down with every order and weigh the shared gradient; heads are unweighted.
The division by the coverage q_i is there because a task that few updates carry moves the backbone by omega_i q_i.

Unlike NTKMTL's own, the bound holds for every p: it is part of the method, as an omega outlives the step that it was
measured in. A statistic that is not finite, or a job whose probe could not be taken, is left out. With p = 0 and no
coverage all omega are 1 to the bit.

Rare tasks suffer from heads that lag behind a backbone which all clients move. So a client first aligns the heads of
its tasks with the backbone that it was sent, by `align` damped Newton steps on all its examples, probes, trains, and
moves them along that direction in training, too (:mod:`fedmtl.balancing.heads`); nothing more is sent. The server
averages these heads instead of adding their updates, which overshoots when they are stale
(:mod:`strategies.aggregators.head_models`). And a mean that is one task's lambda alone lifts the other omega to w_max,
where a client never comes to rest; so omega is taken with the geometric mean of the lambda that are not 0 in place of
``mean_j lam_j``. What this is worth: docs/fedntk-trace.md. The specified form is ``align = 0, head_step = "gradient",
head_aggregation = "strategy", omega_norm = "none"``.

``extra = "sketch"``: clients send sketches of their gradients besides, and the server weighs the tasks by the Gram
matrix of them all (:mod:`strategies.task_weights.sketch`), in place of ``(mean_j lam_j / lam_i)^p``;
these have a common length of their own, whatever `exponent` is and whether `omega_norm` is "none" or "geometric".
``extra = "per_task_delta"``: clients send a change of the backbone for each task, and the server weighs these
(:mod:`strategies.task_weights.per_task_delta`); there are no probes then, and no coverage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fedmtl.balancing import build_balancer
from fedmtl.balancing.equal_probed import HeadStep, ProbePoint
from fedmtl.balancing.options import HeadWeight
from fedmtl.balancing.weights import KernelSize, unbounded_weights
from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainSettings, Update
from strategies.aggregators.head_models import HeadModels
from strategies.core.kinds import Aggregator, ClientPolicy, TaskWeights
from strategies.task_weights.sketch import GramName, SketchedGram

OmegaNorm = Literal["none", "sum_K", "geometric"]
Exponent = Annotated[
    float,
    Param("p in omega = (mean lambda / lambda)^p; w_max bounds omega for every p", ge=0, source="authors' code"),
]
LargestWeight = Annotated[float, Param("omega stays within 1/w_max and w_max", ge=1)]
AddedToLambda = Annotated[float, Param("added to lambda", gt=0)]

_UNSET = "0 for none; unset: 1, and none where training.clip_by = 'part'"


class FedNTKTrace(TaskWeights):
    """FedNTK-trace: tasks balanced across clients by the pooled traces of their kernels.

    Examples
    --------
    The first task's kernel is four times as large. The second one has one owner of two, and counts more with coverage:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.task_weights import FedNTKTrace
    >>> model = toy_model([0.0, 0.0], heads=(0, 0))
    >>> updates = [toy_update(0, tasks=(0, 1), task_traces=(4.0, 1.0)), toy_update(1, task_traces=(4.0,))]
    >>> for coverage in (False, True):
    ...     task_weights = FedNTKTrace(coverage=coverage)
    ...     task_weights.prepare(model, seed=0)
    ...     task_weights.on_aggregated(updates, (0.5, 0.5), model.layout)
    ...     task_weights.traces, [round(omega, 3) for omega in task_weights.weights()]
    ((4.0, 1.0), [0.707, 1.414])
    ((4.0, 1.0), [0.707, 1.489])
    """

    def __init__(
        self,
        *,
        statistic: Annotated[
            KernelSize, Param("size of a kernel; only the trace adds over clients; denoised needs 2 batches")
        ] = "trace",
        probe: Annotated[
            ProbePoint, Param("kernels of the backbone's parameters, or (cheaper) of the representation")
        ] = "full",
        batches: Annotated[int, Param("m, batches that a job probes", ge=1)] = 2,
        exponent: Exponent = 0.5,
        smoothing: Annotated[float, Param("beta of the moving average of lambda", ge=0, lt=1)] = 0.8,
        coverage: Annotated[bool, Param("divide by the share of the updates that carry a task")] = True,
        coverage_min: Annotated[float, Param("q_min, least share that is divided by", gt=0, le=1)] = 0.05,
        w_max: LargestWeight = 50.0,
        head_weight: Annotated[HeadWeight, Param("whether omega scales the heads")] = "unweighted",
        omega_norm: Annotated[
            OmegaNorm,
            Param("geometric mean of 1, before coverage; or sum of K, after it, which hurts with SGD clients"),
        ] = "geometric",
        clip: Annotated[float | None, Param(f"bound of the shared gradient's L2 norm; {_UNSET}", ge=0)] = None,
        head_clip: Annotated[
            float | None, Param(f"bound of the L2 norm of what each head follows; {_UNSET}", ge=0)
        ] = None,
        align: Annotated[int, Param("Newton steps of the heads alone before a job; 0 for none", ge=0)] = 2,
        damping: Annotated[float, Param("of Newton steps, relative to the mean eigenvalue", gt=0)] = 0.3,
        head_step: Annotated[HeadStep, Param("what heads follow in joint steps")] = "newton",
        head_aggregation: Annotated[
            Literal["model", "strategy"], Param("mean of the owners' heads, or as the strategy aggregates the backbone")
        ] = "model",
        eps: AddedToLambda = 1e-12,
        extra: Annotated[
            Literal["none", "sketch", "per_task_delta"],
            Param("what clients send besides traces, or in their place: sketched gradients, or a change for each task"),
        ] = "none",
        sketch_size: Annotated[int, Param("m, entries of a task's sketch; 4 bytes each", ge=1)] = 256,
        sketch_weighting: Annotated[
            GramName, Param("how the server weighs tasks by the sketches' products")
        ] = "nash-mtl",
    ) -> None:
        if extra == "per_task_delta":
            raise ConfigError(
                "balancing.extra = 'per_task_delta' is another part: PerTaskDeltas, by build_task_weights"
            )
        options = {
            "statistic": statistic,
            "probe": probe,
            "batches": batches,
            "head_weight": head_weight,
            "align": align,
            "damping": damping,
            "head_step": head_step,
        }
        self._sketch = SketchedGram(sketch_size, sketch_weighting, smoothing) if extra == "sketch" else None
        self._bounds = {"clip": clip, "head_clip": head_clip}
        options |= self._bounds_beside(TrainSettings())
        self._balancing = Balancing("equal-probed", options | (self._sketch.probe if self._sketch else {}))
        build_balancer(self._balancing)  # refuses here, and not on the clients, what does not fit together
        self.head_aggregation = head_aggregation
        self.batches = batches
        self.exponent = exponent
        self.smoothing = smoothing
        self.coverage = coverage
        self.coverage_min = coverage_min
        self.w_max = w_max
        self.omega_norm = omega_norm
        self.eps = eps
        self._average: list[float] = []
        self._seen: list[int] = []
        self._share: list[float] = []
        self._omega: tuple[float, ...] = ()

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Start with weights of 1 and full coverage of every task."""
        tasks = len(model.layout.heads)
        self._average, self._seen, self._share = [0.0] * tasks, [0] * tasks, [1.0] * tasks
        self._omega = (1.0,) * tasks
        if self._sketch is not None:
            self._balancing = Balancing("equal-probed", {**self._balancing.options, **self._sketch.probe})

    def adjust(self, aggregator: Aggregator, policy: ClientPolicy) -> tuple[Aggregator, ClientPolicy]:
        """Any parts, but for sketches; an aggregator that adds updates is made to average heads."""
        if self._sketch is not None:
            self._sketch.refuse(aggregator)
        if self.head_aggregation == "model" and not aggregator.averages_models:
            aggregator = HeadModels(aggregator)
        return aggregator, policy

    def train_with(self, settings: TrainSettings) -> None:
        """Bounds that are unset give way to those of the settings, where these are on the same parts."""
        self._balancing = Balancing("equal-probed", {**self._balancing.options, **self._bounds_beside(settings)})

    def _bounds_beside(self, settings: TrainSettings) -> dict[str, float]:
        usual = 0.0 if settings.clip_by == "part" else 1.0
        return {option: usual if bound is None else bound for option, bound in self._bounds.items()}

    def fault(self, update: Update, layout: ParameterLayout) -> str | None:
        """Whether sketches are missing."""
        return None if self._sketch is None else self._sketch.fault(update)

    @property
    def balancing(self) -> Balancing:
        """Clients weigh by omega, and measure."""
        return self._balancing

    @property
    def traces(self) -> tuple[float, ...]:
        """lam_i with its correction; not a number for a task that was not seen."""
        pairs = zip(self._average, self._seen, strict=True)
        return tuple(value / (1 - self.smoothing**n) if n else math.nan for value, n in pairs)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share q_i of each task."""
        return tuple(self._share)

    def weights(self) -> tuple[float, ...]:
        """The omega of every task."""
        return self._omega

    def on_aggregated(self, updates: Sequence[Update], weights: Sequence[float], layout: ParameterLayout) -> None:
        """Form lam, q and omega of the new version."""
        total = math.fsum(weights)
        if total <= 0.0:
            return
        for task in range(len(self._share)):
            owners = [(update, a) for update, a in zip(updates, weights, strict=True) if task in update.tasks]
            self._share[task] = 0.9 * self._share[task] + 0.1 * math.fsum(a for _, a in owners) / total
            measured = [
                (a * self._probed(update), trace) for update, a in owners if (trace := _trace(update, task)) is not None
            ]
            batches = math.fsum(n for n, _ in measured)
            if batches > 0.0:
                pooled = math.fsum(n * trace for n, trace in measured) / batches
                self._average[task] = self.smoothing * self._average[task] + (1 - self.smoothing) * pooled
                self._seen[task] += 1
        if self._sketch is not None:
            self._sketch.take(updates, [a * self._probed(update) for update, a in zip(updates, weights, strict=True)])
        if all(self._seen) and (omega := self._uncovered()) is not None:
            self._omega = self._balanced(omega)

    def _probed(self, update: Update) -> int:
        """N_c: the job's first m batches, or as many as it had."""
        return min(self.batches, update.steps)

    def _uncovered(self) -> list[float] | None:
        """The omega before coverage and clip; None while sketches of a task are still to come."""
        if self._sketch is not None:
            return self._sketch.omega()
        omega = unbounded_weights(self.traces, self.exponent, self.eps)
        live = [math.log(weight) for weight, size in zip(omega, self.traces, strict=True) if size > self.eps]
        if self.omega_norm == "geometric" and live:
            scale = math.exp(math.fsum(live) / len(live))
            omega = [weight / scale for weight in omega]
        return omega

    def _balanced(self, omega: list[float]) -> tuple[float, ...]:
        if self.coverage:
            omega = [weight / max(q, self.coverage_min) for weight, q in zip(omega, self._share, strict=True)]
        if self.omega_norm == "sum_K":
            scale = len(omega) / math.fsum(omega)
            omega = [weight * scale for weight in omega]
        return tuple(min(max(weight, 1.0 / self.w_max), self.w_max) for weight in omega)

    def state_dict(self) -> dict[str, Any]:
        """The averages with their counts, the shares, and the omega."""
        return {
            "average": list(self._average),
            "seen": list(self._seen),
            "share": list(self._share),
            "omega": list(self._omega),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._average = [float(value) for value in state["average"]]
        self._seen = [int(value) for value in state["seen"]]
        self._share = [float(value) for value in state["share"]]
        self._omega = tuple(float(value) for value in state["omega"])


def _trace(update: Update, task: int) -> float | None:
    """The mean of ``||grad l_i||^2`` over the batches that the client probed; None if it is not known."""
    if len(update.task_traces) != len(update.tasks):
        return None
    trace = update.task_traces[update.tasks.index(task)]
    return trace if math.isfinite(trace) else None
