"""Parts of one's own with states, held three levels deep, through a kill and a resume: to the bits of an uncut run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, sys
from collections.abc import Mapping, Sequence
from fedmtl.protocol import Decision
from simulations import Experiment, run
from strategies.aggregators import GradientAggregator, ModelAggregator, Optimized, BatchNormStatistics
from strategies.aggregators.server_optimizers import ServerOptimizer
from strategies.core.kinds import Aggregator, Scheduler, Weighting
from strategies.core.loop import Observer
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.catalogue import STRATEGIES
from strategies.schedulers import Buffered
from strategies.selectors.base import Selector
from strategies.weightings import Discounted, polynomial


class Growing(Weighting):
    '''Weights that grow with every update that was weighed.'''
    def __init__(self):
        self.seen = 0
    def weights(self, updates, version, ledger):
        self.seen += len(updates)
        return (self.seen / (1.0 + self.seen) / len(updates),) * len(updates)
    def state_dict(self):
        return {"seen": self.seen}
    def load_state_dict(self, state):
        self.seen = int(state["seen"])


class Shrinking(ServerOptimizer):
    '''Steps that shrink from step to step.'''
    def __init__(self):
        self.steps = 0
    def step(self, current, proposed, rate=None):
        self.steps += 1
        proposed.sub_(current).mul_(1.0 - 1.0 / (1 + self.steps)).add_(current)
    def state_dict(self):
        return {"steps": self.steps}
    def load_state_dict(self, state):
        self.steps = int(state["steps"])


class InTurn(Selector):
    '''Goes on behind the client that it chose last.'''
    def __init__(self):
        super().__init__()
        self.last = 0
    def heard(self, update):
        pass
    def _rows(self, count, generator):
        idle = self.candidates.idle
        rows = sorted(idle.tolist(), key=lambda row: (row <= self.last, row))[:count]
        self.last = rows[-1]
        return idle[[idle.tolist().index(row) for row in rows]]
    def state_dict(self):
        return super().state_dict() | {"turn": self.last}
    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.last = int(state["turn"])


class Passing(Scheduler):
    '''Another scheduler decides; it lies in a dictionary of lists.'''
    def __init__(self, inner):
        self.held = {"schedulers": [inner]}
    @property
    def inner(self):
        return self.held["schedulers"][0]
    def begin(self, clients, now):
        return self.inner.begin(clients, now)
    def on_update(self, update, now):
        return self.inner.on_update(update, now)
    def on_idle(self, client, now):
        return self.inner.on_idle(client, now)
    def on_lost(self, client, now):
        return self.inner.on_lost(client, now)


class Mean(Aggregator):
    '''The mean of what several aggregators make of a step.'''
    def __init__(self, *rules):
        self.rules = list(rules)
    def aggregate(self, step):
        made = [rule.aggregate(step) for rule in self.rules]
        return sum(vector for vector, _ in made) / len(made), made[0][1]


def own(task_weights=None):
    weighting = Growing()  # held twice
    optimized = Optimized(GradientAggregator(Discounted(weighting, a=0.5)), Shrinking())
    return FlowerStrategy(
        Passing(Passing(Buffered(buffer_size=4, concurrency=8, selection=InTurn()))),
        Mean(BatchNormStatistics(optimized, rule="average"), ModelAggregator(weighting)),
        task_weights=task_weights,
        name="own",
    )


class KillAt(Observer):
    def __init__(self, version):
        self.version = version
    def on_aggregation(self, loop, aggregation):
        if aggregation.version == self.version:
            os.kill(os.getpid(), signal.SIGKILL)


STRATEGIES["own"] = own
directory, resume, version = sys.argv[1:]
settings = ["strategy.name=own", "data.clients=20", "devices.ratio=9", "stop.versions=14", "records.checkpoint_every=3"]
observers = [KillAt(int(version))] if int(version) else []
run(Experiment.load(None, settings), directory, resume=resume == "resume", pictures=False, observers=observers)
"""
FILES = ("updates.parquet", "aggregations.parquet", "evaluations.parquet", "model.safetensors")


def go(directory: Path, mode: str, killed_at: int = 0) -> int:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(directory), mode, str(killed_at)]
    return subprocess.run(command, env=environment, timeout=240, check=False).returncode


@pytest.mark.slow
def test_stateful_parts_at_any_depth_go_on_to_the_same_bits_after_kills(tmp_path: Path) -> None:
    uncut, cut = tmp_path / "uncut", tmp_path / "cut"
    assert go(uncut, "fresh") == 0
    assert go(cut, "fresh", killed_at=5) == -signal.SIGKILL
    assert go(cut, "resume", killed_at=11) == -signal.SIGKILL
    assert go(cut, "resume") == 0
    assert {name: (cut / name).read_bytes() for name in FILES} == {name: (uncut / name).read_bytes() for name in FILES}
