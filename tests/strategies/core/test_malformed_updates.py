"""Hostile clients among honest ones, through the wire format and the checks: nothing malformed is applied, or crashes.

``FEDMTL_MALFORMED=10000`` in the environment tries so many messages.
"""

from __future__ import annotations

import heapq
import io
import json
from collections import Counter
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedmtl.protocol import Arrival, Deadline, Event, TrainOrder, Update
from fedmtl.randomness import torch_generator
from fedmtl.records import Recorder
from fedmtl.tasks import Task
from fedmtl.toy import toy_model
from fedmtl.wire import Packet, WireError, pack_update, read_update
from strategies.core.fleet import Fleet
from strategies.core.loop import Loop, Observer
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import build_strategy

TASKS = (Task("a", "regression"), Task("b", "regression"))
HONEST, HOSTILE = (0, 1, 2, 4), 3


class Wired(Fleet):
    """Real clients of which every answer travels: one is hostile, and is heard first and most often."""

    def __init__(self, malformed: ModuleType, first: int) -> None:
        self.malformed = malformed
        self.number = first
        self.kinds: dict[tuple[int, int], str] = {}
        self.time = 0.0
        self.sent: list[tuple[float, int, float, TrainOrder]] = []

    def clients(self) -> Sequence[int]:
        return [*HONEST, HOSTILE]

    def now(self) -> float:
        return self.time

    def send(self, orders: Sequence[TrainOrder]) -> None:
        for order in orders:
            takes = 0.05 if order.client == HOSTILE else 1.0 + 0.1 * order.client
            heapq.heappush(self.sent, (self.time + takes, order.client, self.time, order))

    def next_event(self, until: float | None) -> Event | None:
        if self.sent and (until is None or self.sent[0][0] <= until):
            self.time, _, at, order = heapq.heappop(self.sent)
            packet = pack_update(honest(order))
            if order.client != HOSTILE:
                content = on_the_wire(packet.text, {name: npy(array) for name, array in packet.arrays.items()})
            else:
                spoilt = self.malformed.malform(self.number, packet.text, packet.arrays)
                self.kinds[order.key] = spoilt.kind
                self.number += 1
                content = on_the_wire(spoilt.text, spoilt.arrays)
            update = received(content, order)
            update.dispatched_at, update.arrived_at = at, self.time
            return Arrival(self.time, update)
        if until is None:
            return None
        self.time = max(self.time, until)
        return Deadline(self.time)


def honest(order: TrainOrder) -> Update:
    """What an honest client sends, whatever the policy asks of it."""
    generator = torch_generator(0, "delta", order.client, order.job)
    vectors = {"variate_change": torch.randn(9, generator=generator)} if order.policy == "control-variates" else {}
    terms = {"similarity": 30.0, "client_type": 2.0} if order.policy == "fedqs" else {}
    return Update(
        *(order.client, order.job, order.base.version, torch.randn(9, generator=generator)),
        **{"examples": 10 + order.client, "steps": order.steps or 2, "tasks": (0, 1), "task_losses": (0.5, 1.5)},
        **{"mean_task_weights": (1.0, 1.0), "learning_rate": order.settings.learning_rate},
        terms=terms,
        vectors=vectors,
    )


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def on_the_wire(text: str, arrays: dict[str, bytes]) -> dict[str, Any]:
    return {"state": {"json": text}, "tensors": {name: SimpleNamespace(data=data) for name, data in arrays.items()}}


def received(content: dict[str, Any], order: TrainOrder) -> Update:
    """As the fleet of real clients reads a reply (`strategies.flower.messages.update_of`)."""
    try:
        return read_update(content, order)
    except WireError as error:
        return Update(order.client, order.job, order.base.version, torch.empty(0), 0, 0, failure=f"malformed: {error}")


class Records(Observer):
    """Records as a run does."""

    def __init__(self) -> None:
        self.recorder = Recorder(None, TASKS)

    def on_rejection(self, loop: Loop, rejection: Any) -> None:
        self.recorder.add_rejection(rejection)

    def on_aggregation(self, loop: Loop, aggregation: Any) -> None:
        self.recorder.add_aggregation(aggregation)


def meet(strategy: Strategy, malformed: ModuleType, first: int, count: int) -> tuple[Wired, list[dict[str, Any]]]:
    """Run until so many malformed updates were answered; the fleet, and the rows of the table of updates."""
    strategy.initialise(toy_model(torch.zeros(9), heads=(2, 2), buffers=1))
    fleet, records = Wired(malformed, first), Records()
    Loop(strategy, fleet, [records]).run(lambda loop: "enough" if fleet.number >= first + count else None)
    assert torch.isfinite(strategy.model.vector).all()
    assert strategy.model.vector.abs().max() < 1e4
    return fleet, records.recorder.table("updates").to_pylist()


STRATEGIES = {
    "fedavg": {},
    "fedasync": {},
    "fedqs": {"buffer_size": 3},
    "scaffold": {},
    "fedcompass": {},
    "fedbuff": {"buffer_size": 2},
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_malformed_update_is_applied_and_none_crashes(name: str, malformed: ModuleType) -> None:
    count = malformed.count_of("MALFORMED", 480) // len(STRATEGIES)
    synchronous = name in ("fedavg", "scaffold")  # every hostile answer waits for the honest ones there
    count = max(len(malformed.KINDS), count) if not synchronous else count
    fleet, rows = meet(build_strategy(name, STRATEGIES[name]), malformed, 0, count)
    settled = Counter((row["client"] == HOSTILE, row["rejected"] is None) for row in rows)
    applied = [row for row in rows if row["client"] == HOSTILE and row["rejected"] is None]
    assert not applied, [fleet.kinds[HOSTILE, row["job"]] for row in applied]
    assert settled[True, False] >= count - 10, "each was rejected, but for the last that may still be held"
    assert settled[False, True] >= 3, "honest ones went into the model"
    assert not settled[False, False], "no honest one was lost"


def test_texts_of_clients_reach_the_tables_printable(malformed: ModuleType, tmp_path) -> None:
    """A lone surrogate crashed the recorder; NUL and escapes reached tables and consoles."""
    reasons = []
    for text in (malformed.LONE_SURROGATE, malformed.ESCAPES, "x" * 10_000, "Größe ✓"):
        strategy = build_strategy("fedasync", {})
        strategy.initialise(toy_model(torch.zeros(9), heads=(2, 2), buffers=1))
        (order,) = strategy.orders(strategy.begin([0], 0.0).decision.assignments)
        packet = pack_update(honest(order))
        said = json.dumps(json.loads(packet.text) | {"failure": text})
        update = received(on_the_wire(said, {k: npy(a) for k, a in Packet(said, packet.arrays).arrays.items()}), order)
        (rejection,) = strategy.on_event(Arrival(1.0, update)).rejections
        recorder = Recorder(tmp_path, TASKS)
        recorder.add_rejection(rejection)
        recorder.finish()
        reasons.append(recorder.table("updates")["rejected"].to_pylist()[0])
    assert reasons[0] == "\N{REPLACEMENT CHARACTER}"
    assert reasons[1] == "\ufffd\ufffd[2J\ufffd\ufffd"
    assert reasons[2].startswith("malformed: failure is 'xxx")
    assert len(reasons[2]) < 200
    assert reasons[3] == "Größe ✓"
