"""Everything that the instrument says of a model and its clients' data, in one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedmtl.data.federated import FederatedData
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.ntk.decay import TaskDecay, task_decay
from fedmtl.ntk.measure import KernelProbe, KernelRow, measure_clients
from fedmtl.ntk.sampling import Sample, client_sample, skew_halves, speed_halves, spread_clients
from fedmtl.ntk.tangents import MEMORY, Parameters
from fedmtl.protocol import GlobalModel
from fedmtl.randomness import default_generators, derive_seed

ALL = "all clients"


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes
    ----------
    examples
        Of all clients together, and again shared out among the clients that are looked at one by one.
    clients
        How many of those.
    steps, rate
        Of the descent that is predicted and measured; the rate is chosen by curvature if None.
    parameters, memory
        See :class:`fedmtl.ntk.Kernels`; the descent is on all parameters in any case.
    """

    examples: int = 256
    clients: int = 16
    steps: int = 300
    rate: float | None = None
    parameters: Parameters = "shared"
    memory: int = MEMORY


@dataclass(frozen=True, eq=False)
class Findings:
    """What was measured.

    Attributes
    ----------
    rows
        Of the table `ntk`: of all clients together first.
    sample
        The examples of all clients together.
    clients
        The clients that were looked at one by one, fastest first where speeds are known.
    decays
        For each task its descent.
    groups
        Places in the sample by group of clients, by kind of grouping.
    """

    rows: list[KernelRow]
    sample: Sample
    clients: list[int]
    decays: list[TaskDecay]
    groups: Mapping[str, Mapping[str, np.ndarray]]


def examine(
    model: MultiTaskModel,
    version: GlobalModel,
    data: FederatedData,
    seed: int,
    settings: Settings,
    *,
    seconds: np.ndarray | None = None,
    time: float = 0.0,
    progress: Callable[[str], None] = lambda what: None,
) -> Findings:
    """Measure a version of the global model.

    Parameters
    ----------
    model
        A module that the version fits; its values are overwritten.
    version, data, seed, settings
        What to measure, where, with which draws, and how.
    seconds
        Each client's time for the same work, or None where unknown.
    time
        Of the version, for the table.
    progress
        Called with what is being done.
    """
    with default_generators(derive_seed(seed, "ntk instrument")):
        return _examine(model, version, data, seed, settings, seconds, time, progress)


def _examine(
    model: MultiTaskModel,
    version: GlobalModel,
    data: FederatedData,
    seed: int,
    settings: Settings,
    seconds: np.ndarray | None,
    time: float,
    progress: Callable[[str], None],
) -> Findings:
    common = {"parameters": settings.parameters, "memory": settings.memory}
    progress("kernels of all clients' examples together")
    probe = KernelProbe(model, data, seed, examples=settings.examples, **common)  # type: ignore[arg-type]
    rows = probe.measure(version, time).tasks
    progress("kernels of single clients")
    clients = spread_clients(data, seconds, settings.clients)
    own = client_sample(data, clients, max(2, settings.examples // len(clients)), seed)
    at = {"version": version.version, "time": time, "seed": seed}
    rows += measure_clients(model, data, own, **at, **common)  # type: ignore[arg-type]
    examples, decays = data.train.take(probe.sample.positions), []
    for task, target in zip(data.tasks, examples.targets, strict=True):
        progress(f"descent on task {task.name}")
        decays.append(
            task_decay(
                model, task, examples.features, target, settings.steps, rate=settings.rate, memory=settings.memory
            )
        )
    halves = {"speed": {} if seconds is None else speed_halves(seconds), "skew": skew_halves(data)}
    groups = {
        kind: {name: np.flatnonzero(np.isin(probe.sample.clients, members)) for name, members in found.items()}
        for kind, found in halves.items()
    }
    return Findings(rows, probe.sample, clients.tolist(), decays, groups)
