"""A SuperNode whose client app sends malformed updates, beside two honest ones: none is applied, and nothing crashes.

``FEDMTL_MALFORMED_NODE=30`` in the environment tries so many messages.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

from fedmtl.records import read_summary

pytestmark = [pytest.mark.slow("flower"), pytest.mark.timeout(900)]

HOSTILE = 1
EXPERIMENT = """
[data]
source = "synthetic"
partition = "natural"
clients = 3
[model]
name = "mlp"
hidden = [4]
[strategy]
name = "fedbuff"
buffer_size = 1
[balancing]
name = "equal"
[training]
epochs = 1
[stop]
versions = 100000
[records]
evaluate_every = 100000
"""

# Python runs a module of this name at its start. The node itself is honest; the process that works for it is not.
TAMPERED = """
import sys

if any("flwr-clientapp" in argument for argument in sys.orig_argv):
    import json

    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
    from flwr.clientapp import ClientApp
    from malformed_updates import malform

    honest = ClientApp.__call__

    def answer(self, message, context):
        reply = honest(self, message, context)
        text = reply.content["state"]["json"]
        if message.metadata.message_type != "train":
            return reply
        arrays = {name: array.numpy() for name, array in reply.content["tensors"].items()}
        spoilt = malform(STEP * json.loads(text)["job"], text, arrays)
        shape = {"dtype": "float32", "shape": (1,), "stype": "numpy.ndarray"}
        tensors = ArrayRecord({name: Array(**shape, data=data) for name, data in spoilt.arrays.items()})
        state = ConfigRecord({"json": spoilt.text})
        return Message(RecordDict({"state": state, "tensors": tensors}), reply_to=message)

    ClientApp.__call__ = answer
"""


def test_nothing_malformed_that_a_supernode_sends_is_applied(
    tmp_path: Path, flower_programs: Any, malformed: ModuleType
) -> None:
    count = malformed.count_of("MALFORMED_NODE", 3)
    tampered = tmp_path / "tampered"
    tampered.mkdir()
    shutil.copy(str(malformed.__file__), tampered)
    # Every so manieth kind, an escape in a text, entries of 1e6 and others among them.
    step = max(1, len(malformed.KINDS) // count)
    (tampered / "sitecustomize.py").write_text(f"STEP = {step}\n{TAMPERED}")
    flower, out = flower_programs(tmp_path), tmp_path / "out"
    try:
        flower.start_superlink()
        flower.start_supernode("hostile", HOSTILE, PYTHONPATH=str(tampered))
        for client in (0, 2):
            flower.start_supernode(f"honest{client}", client)
        # It ends with so many arrivals that were not rejected: the nodes take turns, so the hostile one sent as many.
        flower.run(EXPERIMENT, out, ttl=60.0, patience=180.0, set=f"stop.updates={2 * count + 2}")
    finally:
        flower.stop()
    rows = pq.read_table(out / "updates.parquet").to_pylist()
    hostile = [row for row in rows if row["client"] == HOSTILE]
    assert len(hostile) >= count - 1
    assert all(row["applied_version"] is None for row in hostile)
    assert all(row["rejected"] is None or row["rejected"].isprintable() for row in rows)
    assert sum(row["rejected"] is not None for row in hostile) >= count - 2, "the last may still be held"
    assert {row["client"] for row in rows if row["applied_version"] is not None} == {0, 2}
    assert read_summary(out)["guard"]["factor"] == 50.0
