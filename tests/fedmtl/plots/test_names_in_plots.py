"""Names of tasks and runs stand in pictures to the letter, whatever matplotlib makes of such texts elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.text import Text

from fedmtl.plots import PLOTS, RunTables, metrics
from fedmtl.plots.gallery import Plot
from fedmtl.tasks import Task

TASKS = (
    Task("$alpha$ and $beta", "classification", 10),
    Task("_under [mm]", "regression"),
    Task("\x1b[2J\a{\\frac$}{$", "regression"),
    Task("x" * 300, "regression"),
)
SHOWN = ["$alpha$ and $beta", "_under [mm]", r"\x1b[2J\x07{\frac$}{$", f"{'x' * 60}…{'x' * 30}"]


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> RunTables:
    return RunTables.read(make_run("_$run$", TASKS, versions=30, convergence=True))


def shown(figure: Figure) -> list[str]:
    """Every text of a drawn figure that is no formula, as it is read there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of signs that no font has
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        figure.canvas.draw()
    texts = [text.get_text() for text in figure.findobj(Text)]
    return [text.replace(r"\$", "$") for text in texts if text and not is_math_text(text)]


@pytest.mark.slow
@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_names_of_tasks_are_shown_to_the_letter(plot: Plot, run: RunTables) -> None:
    figure = plot.draw(run)
    assert figure is not None
    texts = shown(figure)
    if plot.name.startswith(("metrics", "task-weights", "ntk")):
        assert [name for name in SHOWN if name not in texts] == []


def test_names_of_runs_are_shown_to_the_letter(run: RunTables) -> None:
    figure = metrics.draw_runs({"_$run$": run, "other": run}, "time")
    assert figure is not None
    assert {"_$run$", "other"} <= set(shown(figure))
