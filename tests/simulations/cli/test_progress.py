from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from fedmtl.config import parse_config
from simulations.cli.progress import Display, LineDisplay, LiveDisplay, new_display
from simulations.experiment import Experiment
from simulations.runner import run


def watch(display: type[Display], directory: Path, *settings: str, terminal: bool, width: int = 120) -> str:
    """What a display shows of a small run if it is redrawn after every event."""
    small = ["data.clients=12", "strategy.buffer_size=3", "records.evaluate_every=1", *settings]
    experiment = Experiment(parse_config({}, small))
    output = StringIO()
    console = Console(file=output, width=width, force_terminal=terminal, color_system=None)
    with display(console, experiment.config.stop) as observer:
        observer.seconds = 0.0
        run(experiment, directory, observers=(observer,), pictures=False)
    return output.getvalue()


def test_lines_grow_to_the_whole_and_name_every_task(tmp_path: Path) -> None:
    lines = watch(LineDisplay, tmp_path / "run", "stop.versions=4", terminal=False).splitlines()
    shares = [int(line.partition("%")[0]) for line in lines]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert "version 4 " in lines[-1]
    for task in ("digit 0.", "parity 0.", "ink ", "asymmetry "):
        assert task in lines[-1]


def test_time_left_is_told_once_there_is_progress(tmp_path: Path) -> None:
    lines = watch(LineDisplay, tmp_path / "run", "stop.versions=4", terminal=False).splitlines()
    assert "left" not in lines[0]
    assert all(" s left" in line for line in lines if "version 2 " in line)


@pytest.mark.parametrize("limit", ["stop.updates=12", "stop.time=60"])
def test_any_limit_counts_as_the_whole(tmp_path: Path, limit: str) -> None:
    lines = watch(LineDisplay, tmp_path / "run", limit, terminal=False).splitlines()
    assert lines[-1].startswith("100%")
    assert any(not line.startswith("100%") for line in lines)


def test_a_terminal_shows_a_bar_and_the_metrics(tmp_path: Path) -> None:
    output = watch(LiveDisplay, tmp_path / "run", "stop.versions=4", terminal=True)
    assert "━" in output
    assert "version 4 " in output
    assert "digit 0." in output


def test_the_display_fits_where_the_output_goes() -> None:
    stop = parse_config({}).stop
    assert isinstance(new_display(Console(file=StringIO(), force_terminal=True), stop), LiveDisplay)
    assert isinstance(new_display(Console(file=StringIO()), stop), LineDisplay)
    dumb = Console(file=StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(new_display(dumb, stop), LineDisplay)


def test_a_narrow_terminal_shows_the_bar_the_share_and_the_time_left(tmp_path: Path) -> None:
    output = watch(LiveDisplay, tmp_path / "run", "stop.versions=4", terminal=True, width=40)
    assert "…" not in output
    assert "━" * 24 + " 100%" in output
    assert " s left" in output
