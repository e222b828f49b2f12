"""All pictures of a study, in the order of its page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from matplotlib.figure import Figure

from fedmtl.plots.style import save
from fedmtl.text import file_name
from simulations.studies.overview import Overview, place_name
from simulations.studies.plots.curves import draw_curves
from simulations.studies.plots.dots import final_pages, target_pages
from simulations.studies.plots.ranks import rank_maps, task_ranks
from simulations.studies.study import Study


@dataclass(frozen=True)
class Picture:
    """A picture of a study: its file, what it shows, and how to read it."""

    path: Path
    title: str
    caption: str


_RANKS = (
    "Mean rank over the seeds among all labels, 1 is best, of the final metric; the last column is over all that is in "
    "the picture. A grey cell has no finished run; of those with a star, a run diverged."
)
_SAME_TIME = (
    "The same, of the metric when the first of the labels ended in that place: the mean over the evaluations in the "
    "last tenth of the time until then."
)
_FINALS = (
    "Dots are means over the seeds of the final metric, bars their 95 % intervals, diamonds means of the worst tenth "
    "of the clients. A logarithmic axis of errors has no 0: a bar that goes on to less than a tenth of the least mark "
    "ends there in an arrow. The best over all places is on top, labels of which a run diverged come last. A hollow "
    "dot misses seeds."
)
_TARGETS = (
    "Virtual time until the target was first reached: grey dots are seeds, large ones the geometric mean of those that "
    "got there; those that never did are counted on the right. The best mean rank over all places is on top. A hollow "
    "dot misses seeds."
)
_CURVES = (
    "The best five here by mean rank, and what the study highlights: means over the seeds, at all times at which any "
    "of them was evaluated and none had ended; bands reach from the least to the largest. Thin lines are the others. "
    "Axes hold the curves that did not diverge, with their bands."
)


def draw(study: Study, results: pa.Table, out: Path) -> list[Picture]:
    """Draw all that the runs of a study are there for, into ``plots/``.

    Raises
    ------
    RunDirectoryError
        If a run is damaged, or a picture cannot be written.
    """
    whole = Overview(study, results)
    drawn = []
    for name, title, caption, figure in _figures(whole, out) if whole.tasks else ():
        safe = file_name(name.replace(", ", "--"))
        drawn.append(Picture(save(figure, out / "plots" / f"{safe}.png"), title, caption))
    return drawn


def _figures(whole: Overview, out: Path) -> Iterator[tuple[str, str, str, Figure]]:
    """File name, title, caption and figure."""
    for name, figure in rank_maps(whole):
        yield name, "Ranks by place", _RANKS, figure
    for name, figure in rank_maps(whole, "same_time"):
        yield name, "Ranks by place, at the same time", _SAME_TIME, figure
    if len(whole.measures) > 1:
        yield "ranks-by-task", "Ranks by task, over all places", _RANKS, task_ranks(whole)
    for page, figure in final_pages(whole):
        yield f"final--{page}", f"Final metrics: {page}", _FINALS, figure
    for page, figure in target_pages(whole):
        yield f"time-to-target--{page}", f"Time to target: {page}", _TARGETS, figure
    for place in whole.places:
        if (curves := draw_curves(whole, place, out)) is not None:
            yield f"curves--{place_name(place)}", f"Curves: {place_name(place)}", _CURVES, curves
