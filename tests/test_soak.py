"""A share of the soak on every change: random configurations, kills, honest fleets; and that a soak sees a fault."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from fedmtl.errors import ConfigError
from tools.soak.configurations import configurations
from tools.soak.fleets import fleets
from tools.soak.kills import kills
from tools.soak.pieces import GOOD, Fault, Log, Outcome, Piece, done

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def outcomes(pieces: list[Piece], log: Path, *, seconds: float = 300) -> list[Outcome]:
    return list(done(pieces, Log(log), workers=1, seconds=seconds))


def faults(found: list[Outcome]) -> list[tuple[int, str, str, str]]:
    return [(one.number, one.outcome, one.said, one.about) for one in found if one.outcome not in GOOD]


def test_random_configurations_end_well_or_are_refused_with_a_clear_message(tmp_path: Path) -> None:
    found = outcomes(configurations(40), tmp_path / "log")
    assert faults(found) == []
    assert sum(one.outcome == "success" for one in found) >= 20
    assert all(one.said.strip() for one in found)


def test_runs_that_are_killed_at_random_moments_go_on_to_the_same_bits(tmp_path: Path) -> None:
    found = outcomes(kills(8), tmp_path / "log")
    assert faults(found) == []
    assert sum(one.figures["killed"] for one in found if one.figures) >= 8


def test_honest_fleets_lose_no_update_to_the_guard(tmp_path: Path) -> None:
    found = outcomes(fleets(20, stop={"versions": 12, "updates": 400}), tmp_path / "log")
    assert len(found) == 20
    assert faults(found) == []


def refuse(folder: Path) -> tuple[str, str, dict[str, int]]:
    raise ConfigError("data.clients = 0: should be greater than 0")


def break_down(folder: Path) -> tuple[str, str, dict[str, int]]:
    raise KeyError("client")


def find(folder: Path) -> tuple[str, str, dict[str, int]]:
    raise Fault("bits", "model.safetensors differs")


def hang(folder: Path) -> tuple[str, str, dict[str, int]]:
    while True:
        pass


def vanish(folder: Path) -> tuple[str, str, dict[str, int]]:
    import os

    os._exit(3)


def test_a_soak_tells_every_kind_of_fault_and_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    deeds = [refuse, break_down, find, hang, vanish]
    pieces = [Piece("tried", number, deed.__name__, deed) for number, deed in enumerate(deeds)]
    found = {one.about: one for one in outcomes(pieces, tmp_path / "log", seconds=2)}
    assert {about: one.outcome for about, one in found.items()} == {
        "refuse": "refusal",
        "break_down": "traceback",
        "find": "bits",
        "hang": "stuck",
        "vanish": "died",
    }
    assert "KeyError: 'client'" in found["break_down"].said
    text = (tmp_path / "log").read_text()
    (tmp_path / "log").write_text(text[: text.rindex("{") + 5])  # as a kill leaves it
    assert len(outcomes(pieces, tmp_path / "log", seconds=2)) == 1


def test_who_ends_a_soak_waits_for_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    pieces = [Piece("tried", number, deed.__name__, deed) for number, deed in enumerate([refuse, hang])]
    began = time.monotonic()
    soak = done(pieces, Log(tmp_path / "log"), workers=2, seconds=600)
    assert next(soak).about == "refuse"
    soak.close()  # as an exception such as KeyboardInterrupt does
    assert time.monotonic() - began < 300
    assert multiprocessing.active_children() == []
