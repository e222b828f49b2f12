"""FedNTK-trace on tasks that live on different clients: what its parts do, on held-out examples of the clients.

    .venv/bin/python -m benchmarks.fedntk_trace [--ownership skewed,disjoint] [--partition iid,0.1]
        [--forms "equal;spec;improved"] [--seeds 100,101,102] [--versions 200] [--clients 20] [--strategy FedBuff]

A strategy, with a buffer of 5 where it has one, on the digits' four tasks, with the main job's training and devices. A
partition is "iid" or the alpha of a Dirichlet partition. Every form is a set of overrides of the configuration
(`FORMS`). All numbers are of the examples that the clients hold out, all tasks on all of them; the test set is not
looked at.

For each form: the metrics, means over the last three evaluations (one every 25 versions) and over seeds; the metrics
after every head was fitted anew, on all clients' training examples, to the backbone as the run left it (what the
backbone is worth, whatever became of its heads); the mean change of the tasks' log errors against the first form, in
per cent, with its standard error over seeds; and lambda, q and omega at the end, and the mean age of the heads, in
versions since an owner was aggregated.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence

import numpy as np
import torch

from fedmtl.evaluation import evaluate
from fedmtl.protocol import Aggregation
from fedmtl.tasks import Task
from simulations import Experiment
from simulations.runner import one_thread, simulated_fleet
from strategies.core.loop import Loop, Observer
from strategies.task_weights import FedNTKTrace

EVERY, LAST = 25, 3
OURS = "name=fedntk-trace"
SPEC = (OURS, "align=0", "head_step=gradient", "head_aggregation=strategy", "omega_norm=none")
FORMS: dict[str, tuple[str, ...]] = {
    "equal": ("name=equal",),
    "spec": SPEC,
    "improved": (OURS,),
    "spec, head clip 0.1": (*SPEC, "head_clip=0.1"),
    "spec, head clip 4": (*SPEC, "head_clip=4.0"),
    "spec, weighted heads": (*SPEC, "head_weight=weighted"),
    "spec, no coverage": (*SPEC, "coverage=false"),
    "spec, w_max 10": (*SPEC, "w_max=10.0"),
    "spec, w_max 3": (*SPEC, "w_max=3.0"),
    "spec, no clip": (*SPEC, "clip=0.0"),
    "spec, no clips, weighted": (*SPEC, "clip=0.0", "head_clip=0.0", "head_weight=weighted"),
    "spec, denoised": (*SPEC, "statistic=denoised"),
    "spec, smoothing 0.95": (*SPEC, "smoothing=0.95"),
    "alignment alone": (OURS, "head_step=gradient"),
    "Newton steps alone": (OURS, "align=0"),
    "improved, heads added": (OURS, "head_aggregation=strategy"),
    "align 1": (OURS, "align=1"),
    "align 5": (OURS, "align=5"),
    "damping 0.1": (OURS, "damping=0.1"),
    "damping 1": (OURS, "damping=1.0"),
    "improved, equal weights": (OURS, "exponent=0.0", "coverage=false"),
    "improved, mean of lambda": (OURS, "omega_norm=none"),
    "improved, no coverage": (OURS, "coverage=false"),
    "improved, no clip": (OURS, "clip=0.0"),
    "improved, w_max 10": (OURS, "w_max=10.0"),
}


STRATEGIES: dict[str, tuple[str, ...]] = {
    "FedBuff": ("name=fedbuff", "buffer_size=5"),
    "FedQS-SGD": ("name=fedqs", "buffer_size=5"),
    "FedQS-Avg": ("name=fedqs", "aggregation=model", "buffer_size=5"),
    "FedCompass": ("name=fedcompass", "q_min=1", "q_max=10"),
}


class Watch(Observer):
    """Metrics on the held-out examples, and how old the heads are."""

    def __init__(self, experiment: Experiment) -> None:
        self.data = experiment.data
        self.model = experiment.new_model()
        self.held_out = self.data.train.take(self.data.validation.indices)
        self.metrics: list[list[float]] = []
        self.ages: list[list[int]] = [[0] * len(self.data.tasks)]

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        """Count, and judge if it is due."""
        carried = {task for update in aggregation.updates for task in update.tasks}
        self.ages.append([0 if task in carried else age + 1 for task, age in enumerate(self.ages[-1])])
        if aggregation.version % EVERY == 0:
            model = loop.strategy.model
            model.layout.bind(self.model, model.vector.clone())
            self.metrics.append(list(evaluate(self.model, self.data.tasks, self.held_out).values()))

    def refitted(self) -> list[float]:
        """The metrics of the last model with new heads."""
        train = self.data.train.take(self.data.shards.indices)
        with torch.inference_mode():
            z, held_out = (self.model.backbone(part.features).double() for part in (train, self.held_out))
        z, held_out = (torch.cat([part, torch.ones(len(part), 1)], 1) for part in (z, held_out))
        found: list[float] = []
        for task, y, wanted in zip(self.data.tasks, train.targets, self.held_out.targets, strict=True):
            output = held_out @ fitted_head(task, z.clone(), y)
            found.append(float(task.score_sum(output, wanted)) / len(wanted))
        return found


def fitted_head(task: Task, z: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A head of least loss on a representation (of least squares for regressions), shape [width + 1, outputs]."""
    scale = z.square().mean().sqrt()
    if task.kind == "regression":
        ridge = 1e-3 * scale**2 * len(z) * torch.eye(z.shape[1], dtype=z.dtype)
        return torch.linalg.solve(z.T @ z + ridge, z.T @ targets.double().unsqueeze(1))
    head = torch.zeros(z.shape[1], task.outputs, dtype=z.dtype, requires_grad=True)
    rule = torch.optim.LBFGS([head], max_iter=40)
    labels = targets if task.kind == "classification" else targets.double()

    def closure() -> torch.Tensor:
        rule.zero_grad()
        loss = task.mean_loss(z / scale @ head, labels) / task.loss_factor + 1e-4 * head.square().sum()
        loss.backward()
        return loss

    rule.step(closure)
    return head.detach() / scale


class Result:
    """One run."""

    def __init__(self, form: str, ownership: str, partition: str, seed: int, given: argparse.Namespace) -> None:
        cut = ("data.partition=iid",) if partition == "iid" else ("data.partition=dirichlet", f"data.alpha={partition}")
        setting = (f"seed={seed}", f"data.clients={given.clients}", f"tasks.ownership={ownership}", *cut)
        balancing = (f"balancing.{option}" for option in FORMS[form])
        strategy = (f"strategy.{option}" for option in STRATEGIES[given.strategy])
        experiment = Experiment.load(None, [*setting, *strategy, *balancing])
        watch = Watch(experiment)
        loop = Loop(experiment.new_strategy(), simulated_fleet(experiment), [watch])
        loop.run(lambda loop: "done" if loop.strategy.model.version >= given.versions else None)
        self.tasks = experiment.data.tasks
        self.metrics = np.mean(watch.metrics[-LAST:], axis=0)
        self.refitted = np.array(watch.refitted())
        self.age = np.mean(watch.ages, axis=0)
        weights = loop.strategy.task_weights
        self.weights = [weights.traces, weights.shares, weights.weights()] if isinstance(weights, FedNTKTrace) else []

    @property
    def errors(self) -> np.ndarray:
        """What is better when lower: error rates, and errors of regressions."""
        better = [task.higher_is_better for task in self.tasks]
        return np.where(better, 1.0 - self.metrics, self.metrics)


def show(name: str, results: Sequence[Result], reference: Sequence[Result]) -> None:
    """The lines of a form."""
    change = [100.0 * np.log(r.errors / b.errors) for r, b in zip(results, reference, strict=True)]
    each = [float(row.mean()) for row in change]
    error = statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else math.nan
    rows = {
        "metrics": np.mean([r.metrics for r in results], axis=0),
        "refitted": np.mean([r.refitted for r in results], axis=0),
        "change": np.mean(change, axis=0),
    }
    print(
        f"  {name:26}",
        *(f"{key} {np.array2string(row, precision=3, suppress_small=True)}" for key, row in rows.items()),
    )
    age = np.mean([r.age for r in results], axis=0).round(1)
    print(f"  {'':26} mean change {statistics.mean(each):.1f} +- {error:.1f} %, age {age}", flush=True)
    if results[0].weights:
        lam, q, omega = (np.median([r.weights[k] for r in results], axis=0) for k in range(3))
        with np.printoptions(precision=3, suppress=True):
            print(f"  {'':26} medians: lambda {lam}, q {q}, omega {omega}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ownership", default="skewed,disjoint,all")
    parser.add_argument("--partition", default="iid,0.1")
    parser.add_argument("--seeds", default="100,101,102")
    parser.add_argument("--forms", default="equal;spec;improved", help=f"with ';' between: {'; '.join(FORMS)}")
    parser.add_argument("--strategy", default="FedBuff", choices=STRATEGIES)
    parser.add_argument("--versions", type=int, default=200)
    parser.add_argument("--clients", type=int, default=20)
    given = parser.parse_args()
    forms, seeds = given.forms.split(";"), [int(seed) for seed in given.seeds.split(",")]
    if unknown := [form for form in forms if form not in FORMS]:
        parser.error(f"unknown forms: {', '.join(unknown)}")
    if given.versions < EVERY:
        parser.error(f"--versions: at least {EVERY}")
    with one_thread():
        for ownership in given.ownership.split(","):
            for partition in given.partition.split(","):
                print(f"{ownership}, {partition}: {len(seeds)} seeds, {given.versions} versions")
                reference: list[Result] = []
                for form in forms:
                    results = [Result(form, ownership, partition, seed, given) for seed in seeds]
                    reference = reference or results
                    show(form, results, reference)


if __name__ == "__main__":
    main()
