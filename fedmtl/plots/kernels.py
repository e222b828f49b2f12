"""Tangent kernels in pictures: spectra, alignments, and errors as they were predicted and as they decayed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedmtl.plots.style import COLOURS, GREY, SEQUENTIAL, line_look, new_figure, styled

DIVERGING = "RdBu_r"
_LABELS = 24
_FEW = 8


@styled
def draw_spectra(spectra: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """A panel per kind of kernel and a line per task: its eigenvalues in descending order, both axes logarithmic.

    Parameters
    ----------
    spectra
        For each kind of kernel (the panel's title), by task, the eigenvalues.
    """
    names = list(dict.fromkeys(name for tasks in spectra.values() for name in tasks))
    figure, panels = new_figure(4.6 + 0.2 * math.ceil(len(names) / 6), 1, len(spectra))
    for panel, (kind, tasks) in zip(panels, spectra.items(), strict=True):
        for name, values in tasks.items():
            known = np.array(values)
            known = known[known > 1e-12 * max(known.max(initial=0.0), 1e-300)]
            panel.plot(np.arange(1, len(known) + 1), known, label=name, **line_look(names.index(name)))
        panel.set_title(kind)
        if any(max(values, default=0.0) > 0 for values in tasks.values()):
            panel.set_xscale("log")
            panel.set_yscale("log")
        else:
            panel.text(0.5, 0.5, "all zero", ha="center", transform=panel.transAxes)
        panel.set_xlabel("eigenvalue, largest first")
        panel.margins(x=0.02)
    panels[0].set_ylabel("size")
    figure.legend(handles=panels[0].get_lines(), loc="outside upper center", ncols=min(6, len(names)))
    return figure


@styled
def draw_alignment(
    labels: Sequence[str], axis: str, matrices: Mapping[str, np.ndarray], signed: Sequence[bool]
) -> Figure:
    """A heat map per matrix between the same things.

    Parameters
    ----------
    labels, axis
        The things' names, and what they are.
    matrices
        By title, shape [len(labels), len(labels)]; NaN is left grey.
    signed
        For each matrix whether it reaches from -1 to 1, or from 0 to 1.
    """
    figure, panels = new_figure(5.0, 1, len(matrices))
    step = -(-len(labels) // _LABELS)
    places = range(0, len(labels), step)
    shown = [labels[place] for place in places]
    for panel, (title, matrix), both in zip(panels, matrices.items(), signed, strict=True):
        image = panel.imshow(matrix, cmap=DIVERGING if both else SEQUENTIAL, vmin=-1 if both else 0, vmax=1)
        panel.set_facecolor("#DDDDDD")
        panel.set_title(title)
        panel.grid(visible=False)
        panel.set_xticks(places, shown, rotation=90 if len(labels) > _FEW else 30)
        panel.set_yticks(places, shown)
        panel.set_xlabel(axis)
        if len(labels) <= _FEW:
            _write_values(panel, matrix, both=both)
        figure.colorbar(image, ax=panel, pad=0.02, shrink=0.8)
    return figure


def _write_values(panel: Axes, matrix: np.ndarray, *, both: bool) -> None:
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            dark = abs(value) > 0.6 if both else value < 0.5
            panel.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color="white" if dark else "black"
            )


@dataclass(frozen=True, eq=False)
class Decay:
    """Mean losses of a group of examples before the first step and after each: predicted and measured."""

    group: str
    predicted: np.ndarray
    measured: np.ndarray


@styled
def draw_decay(tasks: Mapping[str, Sequence[Decay]]) -> Figure:
    """A panel per task: measured losses as lines and predicted ones dashed, a colour per group of clients."""
    figure, panels = _panels(len(tasks))
    groups = list(dict.fromkeys(decay.group for decays in tasks.values() for decay in decays))
    for place, (panel, (name, decays)) in enumerate(zip(panels, tasks.items(), strict=False)):
        for decay in decays:
            colour = COLOURS[groups.index(decay.group) % len(COLOURS)]
            steps = np.arange(len(decay.measured))
            panel.plot(steps, _finite(decay.measured), color=colour)
            panel.plot(steps, _finite(decay.predicted), color=colour, linestyle="--", linewidth=1.4)
        panel.set_title(name)
        panel.set_xscale("symlog", linthresh=1, linscale=0.3)
        panel.set_xlim(0, max(1, len(decays[0].measured) - 1))
        # A prediction that explodes would press everything else onto the axis.
        highest = max(float(np.nanmax(_finite(decay.measured))) for decay in decays)
        panel.set_ylim(top=min(panel.get_ylim()[1], 1.6 * highest))
        _outer(panel, place, len(tasks), panels, "steps of gradient descent")
    panels[0].set_ylabel("mean loss")
    looks = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=group) for i, group in enumerate(groups)]
    looks += [
        Line2D([], [], color=GREY, label="measured"),
        Line2D([], [], color=GREY, linestyle="--", linewidth=1.4, label="predicted by the kernel at the start"),
    ]
    figure.legend(handles=looks, loc="outside upper center", ncols=_columns(looks))
    return figure


@dataclass(frozen=True, eq=False)
class DirectionDecay:
    """How much of a residual is left along an eigenvector, as a share of what was there, after each step."""

    label: str
    predicted: np.ndarray
    measured: np.ndarray


@styled
def draw_directions(tasks: Mapping[str, Sequence[DirectionDecay]]) -> Figure:
    """A panel per task with a squared error: the residual along some eigenvectors, measured and predicted."""
    figure, panels = _panels(len(tasks))
    labels = list(dict.fromkeys(line.label for lines in tasks.values() for line in lines))
    shades = [line_look(index)["color"] for index in range(len(labels))]
    for place, (panel, (name, lines)) in enumerate(zip(panels, tasks.items(), strict=False)):
        for line in lines:
            colour = shades[labels.index(line.label)]
            steps = np.arange(len(line.measured))
            panel.plot(steps, _finite(np.abs(line.measured)), color=colour)
            panel.plot(steps, _finite(np.abs(line.predicted)), color=colour, linestyle="--", linewidth=1.4)
        panel.set_title(name)
        panel.set_yscale("log")
        panel.set_ylim(1e-3, 10)
        panel.set_xscale("symlog", linthresh=1, linscale=0.3)
        panel.set_xlim(0, max(1, len(lines[0].measured) - 1))
        _outer(panel, place, len(tasks), panels, "steps of gradient descent")
    panels[0].set_ylabel("share of the residual left")
    looks = [Line2D([], [], color=shade, label=label) for shade, label in zip(shades, labels, strict=True)]
    looks += [
        Line2D([], [], color=GREY, label="measured"),
        Line2D([], [], color=GREY, linestyle="--", linewidth=1.4, label="predicted: exp(-rate t)"),
    ]
    figure.legend(handles=looks, loc="outside upper center", ncols=_columns(looks))
    return figure


def _columns(entries: Sequence[Line2D]) -> int:
    """Columns of a legend whose longest entries leave no room for more."""
    return (
        2 if max(len(str(entry.get_label())) for entry in entries) > 24 and len(entries) > 3 else min(4, len(entries))
    )


def _panels(count: int) -> tuple[Figure, Sequence[Axes]]:
    columns = min(count, 2 if count <= 4 else 3 if count <= 12 else 5)
    rows = math.ceil(count / columns)
    figure, panels = new_figure(1.2 + (3.0 if rows < 3 else 2.2) * rows, rows, columns)
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels


def _outer(panel: Axes, place: int, count: int, panels: Sequence[Axes], axis: str) -> None:
    """Name the horizontal axis where no panel is below."""
    columns = min(count, 2 if count <= 4 else 3 if count <= 12 else 5)
    if place + columns >= count:
        panel.set_xlabel(axis)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)
