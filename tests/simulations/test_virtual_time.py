"""A run whose clock cannot count its times, or stands still, is refused; pictures do not undo a finished run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from fedmtl.errors import UserError
from simulations import Experiment, run
from simulations.cli.results import show_report
from simulations.devices import Devices

SMALL = [
    "data.clients=6",
    "model.name=linear",
    "balancing.name=equal",
    "stop.versions=4",
    "strategy.name=fedbuff",
    "strategy.buffer_size=3",
]


def small(*overrides: str) -> Experiment:
    return Experiment.load(None, [*SMALL, *overrides])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("devices.startup=1e308", r"client 0: devices.startup is 1e\+308, must be at most 2\^53"),
        ("devices.startup=1e16", r"client 0: devices.startup is 1e\+16"),
        (
            "devices.download_bytes_per_second=1e-300",
            r"client 0: an order takes .*, at most .* devices.download",
        ),
        ("devices.upload_bytes_per_second=1e-300", r"client 0: an order takes .* s, at most .* from devices.upload"),
        ("devices.away=1e308", r"devices.away = 1e\+308"),
        ("devices.jitter=1e200", r"devices.jitter = 1e\+200"),
    ],
)
def test_times_that_no_clock_counts_are_refused_before_the_run(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(small(override, "devices.dropout=0.1"), tmp_path / "run", pictures=False)
    assert not (tmp_path / "run").exists()


def test_a_run_ends_where_its_clock_does(tmp_path: Path) -> None:
    """Each order takes half of all the time that there is."""
    with pytest.raises(UserError, match=r"client \d: an order of 4.5e\+15 s, given at .* ends after 2\^53 s.*startup"):
        run(small("devices.startup=4.5e15"), tmp_path / "run", pictures=False)


def test_an_order_too_short_to_move_the_clock_is_refused(tmp_path: Path) -> None:
    """In the second round, which begins when the slow client has answered."""
    experiment = Experiment.load(None, ["strategy.name=fedavg", *(entry for entry in SMALL if "strategy" not in entry)])
    experiment.__dict__["devices"] = Devices(6, 0, seconds_per_order=[1e9, *[1e-300] * 5])
    with pytest.raises(UserError, match=r"client \d: an order of .*e-\d+ s, given at 1e\+09 s, is too short to move"):
        run(experiment, tmp_path / "run", pictures=False)


@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy.name=defedavg", "strategy.buffer_size=2", "strategy.tick=1e-300"],
        ["strategy.name=fedqueue", "strategy.round_seconds=1e-300"],
    ],
    ids=["tick", "round"],
)
def test_a_server_that_wakes_without_end_and_does_nothing_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    monkeypatch.setattr("strategies.core.loop._IDLE_WAKES", 1000)
    settings = [entry for entry in SMALL if not entry.startswith("strategy.")]
    experiment = Experiment.load(None, [*settings, "devices.kind=homogeneous", *overrides])
    with pytest.raises(UserError, match=r"woken 1,000 times in a row.* such as a tick or the length of a round"):
        run(experiment, tmp_path / "run", pictures=False)


@pytest.mark.parametrize("override", ["strategy.timeout=1e308", "strategy.timeout=1e300"])
def test_a_deadline_at_the_end_of_all_times_is_none(tmp_path: Path, override: str) -> None:
    settings = [entry for entry in SMALL if not entry.startswith("strategy.")]
    result = run(Experiment.load(None, [*settings, "strategy.name=fedavg", override]), tmp_path / "run", pictures=False)
    assert result.ended == "4 versions were made"


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_leaves_a_finished_run_and_says_how_to_draw_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*anything: Any) -> None:
        raise ValueError("no ticks fit")

    directory = tmp_path / "run"
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr("fedmtl.report.make_plots", fail)
        result = run(small(), directory)
    assert result.ended == "4 versions were made"
    assert json.loads((directory / "summary.json").read_text())["versions"] == 4
    assert (directory / "model.safetensors").is_file()
    assert f"ValueError: no ticks fit); all else is there, and fedmtl report {directory} makes it anew" in caplog.text
    show_report(directory, None)
    assert (directory / "report.html").is_file()
