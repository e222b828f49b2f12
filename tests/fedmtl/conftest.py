"""A finished run whose uploads are made up, but look like real ones and went through the real recorder."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from fedmtl.client_types import TYPE_NUMBERS
from fedmtl.evaluation import EvaluationRow
from fedmtl.ntk.groups import BY_SKEW, BY_SPEED, GroupRow
from fedmtl.ntk.measure import KernelRow, Measured
from fedmtl.protocol import Aggregation, Rejection, Update
from fedmtl.records import Recorder, summarise, write_devices, write_summary
from fedmtl.records.schemas import CONVERGENCE
from fedmtl.records.setting import PARTITION, write_table
from fedmtl.tasks import Task

DIGITS = (
    Task("digit", "classification", 10),
    Task("parity", "binary"),
    Task("ink", "regression"),
    Task("asymmetry", "regression", loss="absolute_error"),
)

MakeRun = Callable[..., Path]


class MadeUpRun:
    """Uploads of clients with speeds 1:50 apart, aggregated ten at a time; metrics follow exponentials with noise."""

    def __init__(
        self,
        directory: Path,
        tasks: Sequence[Task] = DIGITS,
        *,
        clients: int = 100,
        versions: int = 90,
        strategy: str = "fedqs",
        rate: float = 30.0,
        typed: bool = True,
        balanced: bool = True,
        setting: bool = True,
        kernels: bool = True,
        convergence: bool = False,
    ) -> None:
        self.directory, self.tasks, self.clients, self.rate = directory, tasks, clients, rate
        self.typed, self.balanced = typed, balanced
        self.random = np.random.default_rng(7)
        self.seconds = self.random.uniform(1.0, 50.0, clients)
        self.recorder = Recorder(directory, tasks, kernels=kernels, convergence=convergence)
        self.kernels, self.convergence = kernels, convergence
        self.jobs = [0] * clients
        directory.mkdir(parents=True, exist_ok=True)
        if setting:
            write_devices(directory, self.seconds)
            self.write_partition()
        end = self.play(versions)
        self.recorder.finish()
        summary = summarise(
            self.recorder,
            name=directory.name,
            strategy=strategy,
            seed=7,
            ended=f"{versions} versions were made",
            time=end,
            wall_seconds=12.5,
            target=(tasks[0].name, 0.8),
        )
        (directory / "experiment.toml").write_text(f'name = "{directory.name}"\n\n[strategy]\nname = "{strategy}"\n')
        write_summary(directory, summary)

    def play(self, versions: int) -> float:
        self.evaluate(0, 0.0)
        heap = [(float(self.seconds[client]), client, 0, 0.0) for client in range(self.clients)]
        heapq.heapify(heap)
        buffer: list[Update] = []
        version, now = 0, 0.0
        while version < versions:
            now, client, base, sent = heapq.heappop(heap)
            upload = self.upload(client, base, sent, now)
            if self.random.random() < 0.01:
                self.recorder.add_rejection(Rejection(now, upload, "the loss of task ink is not finite"))
            else:
                buffer.append(upload)
            if len(buffer) == 10:
                lags = tuple(version - update.base_version for update in buffer)
                version += 1
                late = frozenset({buffer[0].key} if lags[0] > 8 else ())
                step = Aggregation(version, now, "full", tuple(buffer), (0.1,) * 10, lags, late)
                self.recorder.add_aggregation(step, self.statistics(version) if self.convergence else {})
                buffer = []
                if version % 3 == 0:
                    self.evaluate(version, now)
            heapq.heappush(heap, (now + self.seconds[client] * self.random.uniform(0.9, 1.1), client, version, now))
        self.recorder.add_unsettled(buffer)
        return now

    def upload(self, client: int, base: int, sent: float, now: float) -> Update:
        progress = np.exp(-base / 30)
        weights = (
            1.0 + np.linspace(0.8, -0.8, len(self.tasks)) * (1 - progress) + self.random.normal(0, 0.1, len(self.tasks))
        )
        types = ("FBC", "FUC") if self.seconds[client] < 25 else ("SUC", "SBC-1", "SBC-2")
        self.jobs[client] += 1
        typed = self.typed and self.jobs[client] > 1
        return Update(
            client=client,
            job=self.jobs[client] - 1,
            base_version=base,
            delta=torch.zeros(1),
            examples=20,
            steps=4,
            tasks=tuple(range(len(self.tasks))),
            task_losses=tuple(progress * self.random.uniform(0.5, 1.5, len(self.tasks))),
            mean_task_weights=tuple(weights) if self.balanced else (),
            task_traces=tuple(self.random.uniform(1, 9, len(self.tasks))),
            learning_rate=0.1,
            terms=self.terms(types[self.random.integers(len(types))]) if typed else {},
            dispatched_at=sent,
            arrived_at=now,
            bytes_up=27_000,
            bytes_down=27_048,
        )

    def terms(self, client_type: str) -> dict[str, float]:
        angle = self.random.uniform(90, 120) if "B" in client_type else self.random.uniform(60, 90)
        return {"client_type": TYPE_NUMBERS[client_type], "similarity": angle}

    def statistics(self, version: int) -> dict[str, float | None]:
        fading = float(np.exp(-version / self.rate) * self.random.uniform(0.8, 1.2))
        return dict.fromkeys(CONVERGENCE.names) | {"drift": 0.1 * fading, "dissimilarity": 3.0 - fading}

    def evaluate(self, version: int, now: float) -> None:
        rows = []
        for task in self.tasks:
            for group, penalty in (("test", 0.0), ("fast", -0.03), ("slow", 0.05), ("worst", 0.2)):
                error = float(
                    np.clip(0.08 + 0.8 * np.exp(-version / self.rate) + penalty + self.random.normal(0, 0.01), 0.01, 1)
                )
                value = 1 - error if task.higher_is_better else 3 * error
                rows.append(EvaluationRow(version, now, task.name, task.metric, value, group))
            rows.append(EvaluationRow(version, now, task.name, "loss", 2 * error, "test"))
        self.recorder.add_evaluation(rows)
        if self.kernels:
            self.recorder.add_kernels(Measured(self.kernel_rows(version, now), self.group_rows(version, now)))

    def kernel_rows(self, version: int, now: float) -> list[KernelRow]:
        sizes = [10.0**place * (2 - np.exp(-version / self.rate)) for place in range(len(self.tasks))]
        falling = [float(rank) ** -1.5 for rank in range(1, 65)]
        others = [0.3] * len(self.tasks)
        return [
            KernelRow(
                version,
                now,
                None,
                kind,
                task.name,
                64,
                2.6 * size,
                0.0,
                size,
                None,
                5.0,
                [size * share for share in falling],
                others,
                others if kind == "losses" else [],
            )
            for kind in ("outputs", "losses")
            for task, size in zip(self.tasks, sizes, strict=True)
        ]

    def group_rows(self, version: int, now: float) -> list[GroupRow]:
        loss = float(np.exp(-version / self.rate))
        falling = [32 * float(rank) ** -1.5 for rank in range(1, 33)]
        return [
            GroupRow(version, now, group, task.name, 32, loss, sum(falling), 32.0, 5.0, falling)
            for task in self.tasks
            for group in (*BY_SPEED, *BY_SKEW)
        ]

    def write_partition(self) -> None:
        shares = self.random.dirichlet([0.3] * 10, self.clients)
        counts = np.stack([self.random.multinomial(self.random.integers(5, 60), share) for share in shares])
        client, label = np.nonzero(counts)
        schema = PARTITION.with_metadata({"task": self.tasks[0].name})
        write_table(
            self.directory / "partition.parquet", pa.table([client, label, counts[client, label]], schema=schema)
        )


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Makes a finished run in a fresh directory of that name."""

    def make(name: str, tasks: Sequence[Task] = DIGITS, **options: object) -> Path:
        directory = tmp_path_factory.mktemp("runs") / name
        MadeUpRun(directory, tasks, **options)  # type: ignore[arg-type]
        return directory

    return make


@pytest.fixture(scope="session")
def digits_run(make_run: MakeRun) -> Path:
    """A run with everything in it. Tests must not write to it."""
    return make_run("fedqs-digits")
