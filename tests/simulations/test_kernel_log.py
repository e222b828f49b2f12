"""Kernels measured during a run: to the same bits however it is cut, at a cost that is told, and only if asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fedmtl.ntk.measure import PROBE_EXAMPLES, KernelProbe
from fedmtl.records import SCHEMAS
from fedmtl.report import write_report
from simulations import Experiment, run
from tests.interrupting import InterruptAt

SMALL = [
    "name=small",
    "data.clients=12",
    "stop.versions=10",
    "records.evaluate_every=5",
    "records.checkpoint_every=3",
    "strategy.buffer_size=3",
    "devices.ratio=5",
    "training.epochs=1",
    'tasks.names=["digit", "ink"]',
]
EVERY = "records.ntk_every=4"


def small(*overrides: str) -> Experiment:
    return Experiment.load(None, [*SMALL, *overrides])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("measured") / "run"
    run(small(EVERY), directory, pictures=False)
    return directory


def test_the_table_has_version_zero_every_fourth_and_the_last(measured: Path) -> None:
    table = pq.read_table(measured / "ntk.parquet")
    assert table.schema == SCHEMAS["ntk"]
    assert sorted(set(table["version"].to_pylist())) == [0, 4, 8, 10]
    assert table.num_rows == 4 * 2 * 2
    assert set(table["examples"].to_pylist()) == {PROBE_EXAMPLES}


def test_groups_of_clients_are_measured_at_the_same_versions(measured: Path) -> None:
    table = pq.read_table(measured / "ntk_groups.parquet")
    assert table.schema == SCHEMAS["ntk_groups"]
    assert sorted(set(table["version"].to_pylist())) == [0, 4, 8, 10]
    assert set(table["group"].to_pylist()) == {"fast", "slow", "unbiased", "biased"}
    assert table.num_rows == 4 * 2 * 4


def test_measuring_changes_nothing_else(measured: Path, tmp_path: Path) -> None:
    run(small(), tmp_path / "plain", pictures=False)
    for name in ("updates.parquet", "aggregations.parquet", "evaluations.parquet", "model.safetensors"):
        assert (tmp_path / "plain" / name).read_bytes() == (measured / name).read_bytes(), name


def test_without_the_switch_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("a probe was made")

    monkeypatch.setattr(KernelProbe, "__init__", never)
    result = run(small("stop.versions=3"), tmp_path / "run", pictures=False)
    assert not list(result.directory.glob("ntk*.parquet"))
    assert "ntk_seconds" not in result.summary


@pytest.mark.parametrize("events", [2, 14, 25])
def test_a_run_that_was_cut_has_the_same_kernels_to_the_bit(measured: Path, tmp_path: Path, events: int) -> None:
    experiment = small(EVERY)
    assert run(experiment, tmp_path / "cut", observers=(InterruptAt(events),), pictures=False).interrupted
    result = run(small(EVERY), tmp_path / "cut", resume=True, pictures=False)
    for name in ("ntk.parquet", "ntk_groups.parquet"):
        assert (tmp_path / "cut" / name).read_bytes() == (measured / name).read_bytes()
    assert 0 < result.summary["ntk_seconds"] < result.summary["wall_seconds"]


@pytest.mark.slow
def test_the_cost_is_in_the_summary_and_in_the_report_with_the_pictures(measured: Path) -> None:
    summary = json.loads((measured / "summary.json").read_text())
    assert 0 < summary["ntk_seconds"] < summary["wall_seconds"]
    page = write_report(measured).read_text()
    assert "of it for measuring kernels" in page
    assert "Spectra of the tasks&#x27; tangent kernels" in page
    assert {f"ntk-{shown}.png" for shown in ("spectra", "sizes", "by-speed", "by-skew")} <= {
        path.name for path in (measured / "plots").iterdir()
    }


def test_a_negative_interval_is_refused() -> None:
    with pytest.raises(Exception, match=r"records\.ntk_every = -1"):
        small("records.ntk_every=-1")
