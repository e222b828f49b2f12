"""Draw the worked picture of docs/convergence.md: what each column says of one server step by two clients.

``python -m tools.convergence_picture`` writes docs/images/convergence-statistics.png anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc

from fedmtl.plots.style import COLOURS, GREY, new_figure, save, styled
from fedmtl.records.convergence import loss_variance, step_statistics
from fedmtl.toy import toy_model, toy_update

PICTURE = Path(__file__).resolve().parent.parent / "docs/images/convergence-statistics.png"

MODEL = np.array([0.0, 10.0])
UPDATES = np.array([[3.0, 4.0], [-3.0, 4.0]])
WEIGHTS = (0.5, 0.5)
STEP = np.array(WEIGHTS) @ UPDATES
LOSSES = np.array([[1.0], [3.0]])
"""The clients' mean losses on what they hold out."""

CLIENTS, SERVER = COLOURS[0], COLOURS[1]
_ARROW = {"arrowstyle": "-|>", "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}


def statistics() -> Mapping[str, float | None]:
    """Of the step, as a run records them; the second client is the faster one."""
    updates = [toy_update(client, update.tolist()) for client, update in enumerate(UPDATES)]
    after = toy_model((MODEL + STEP).tolist(), version=1)
    return step_statistics(toy_model(MODEL.tolist()), after, updates, WEIGHTS, fast=[1])


@styled
def draw() -> Figure:
    """Six panels, one or two columns in each."""
    figure, axes = new_figure(7.2, 2, 3)
    found = statistics()
    for panel, show in zip(axes, (_lengths, _spread, _angles, _drift, _shares, _losses), strict=True):
        show(panel, found)
    return figure


def _title(panel: Axes, found: Mapping[str, float | None], *names: str) -> None:
    panel.set_title(", ".join(f"{name} {found[name]:.3g}" for name in names), fontsize=10)


def _arrows(panel: Axes, origin: np.ndarray, *, step: bool = True) -> None:
    for update in UPDATES:
        panel.annotate("", origin + update, origin, arrowprops={**_ARROW, "color": CLIENTS})
    panel.plot([], [], color=CLIENTS, label="updates")
    if step:
        panel.annotate("", origin + STEP, origin, arrowprops={**_ARROW, "color": SERVER})
        panel.plot([], [], color=SERVER, label="server's step")
    panel.set(xlabel="first parameter", ylabel="second parameter")


def _plane(panel: Axes) -> None:
    panel.set(xlim=(-5, 5), ylim=(-0.5, 7))
    panel.legend(fontsize=9, loc="upper center", ncols=2)


def _lengths(panel: Axes, found: Mapping[str, float | None]) -> None:
    _arrows(panel, np.zeros(2))
    for end in (*UPDATES, STEP):
        panel.annotate(f"{np.linalg.norm(end):g}", end, xytext=(0, 4), textcoords="offset points", ha="center")
    _plane(panel)
    _title(panel, found, "step_norm", "update_norm")


def _spread(panel: Axes, found: Mapping[str, float | None]) -> None:
    _arrows(panel, np.zeros(2), step=False)
    mean = UPDATES.mean(axis=0)
    panel.plot(*mean, "o", color="black", markersize=5, label="their mean")
    for update in UPDATES:
        panel.plot(*np.stack([mean, update]).T, color=GREY, linestyle=":", linewidth=1.4)
        panel.annotate("3", (mean + update) / 2, xytext=(0, 4), textcoords="offset points", ha="center")
    _plane(panel)
    _title(panel, found, "update_spread", "dissimilarity")


def _angles(panel: Axes, found: Mapping[str, float | None]) -> None:
    _arrows(panel, np.zeros(2))
    first, second, ahead = (math.degrees(math.atan2(y, x)) for x, y in (*UPDATES, STEP))
    panel.add_patch(Arc((0, 0), 3, 3, theta1=first, theta2=ahead, color=SERVER))
    panel.add_patch(Arc((0, 0), 5, 5, theta1=first, theta2=second, color=CLIENTS))
    panel.annotate(f"{ahead - first:.0f}°", (0.25, 1.7), color=SERVER)
    panel.annotate(f"{second - first:.0f}°", (-1.1, 2.7), color=CLIENTS)
    panel.set_aspect("equal", adjustable="box")
    _plane(panel)
    _title(panel, found, "step_cosine", "pair_cosine")


def _drift(panel: Axes, found: Mapping[str, float | None]) -> None:
    panel.annotate("", MODEL, (0, 0), arrowprops={**_ARROW, "color": GREY})
    panel.plot([], [], color=GREY, label="the model, 10 long")
    _arrows(panel, MODEL, step=False)
    for model in MODEL + UPDATES:
        panel.plot(*model, "s", color=CLIENTS, markersize=5)
    panel.set(xlim=(-5, 5), ylim=(-0.5, 19))
    panel.legend(fontsize=9, loc="upper center")
    _title(panel, found, "drift")


def _shares(panel: Axes, found: Mapping[str, float | None]) -> None:
    for client, (weight, left) in enumerate(zip(WEIGHTS, (0.0, WEIGHTS[0]), strict=True)):
        fast = client == 1
        panel.barh(
            ["weights"], [weight], left=left, height=0.4, color=COLOURS[2] if fast else COLOURS[5], edgecolor="white"
        )
        name = "faster half" if fast else "slower half"
        panel.annotate(f"client {client}\n{name}", (left + weight / 2, 0), ha="center", va="center", fontsize=9)
    panel.set(xlim=(0, 1), ylim=(-0.6, 0.6), xlabel="share of the step's weights")
    panel.grid(visible=False, axis="y")
    _title(panel, found, "share_fast")


def _losses(panel: Axes, found: Mapping[str, float | None]) -> None:
    clients, mean = np.arange(len(LOSSES)), LOSSES.mean()
    panel.axhline(mean, color=GREY, linestyle="--", label="their mean")
    panel.vlines(clients, mean, LOSSES[:, 0], color=GREY, linestyle=":")
    panel.plot(clients, LOSSES[:, 0], "o", color=CLIENTS, label="clients")
    panel.set_xticks(clients)
    panel.set(xlim=(-0.6, 1.6), ylim=(0, 4.2), xlabel="client", ylabel="loss on held-out examples")
    panel.legend(fontsize=9, loc="upper left")
    variance = loss_variance(LOSSES)
    assert variance is not None
    panel.set_title(f"loss_variance {variance[0]:g}", fontsize=10)


if __name__ == "__main__":
    save(draw(), PICTURE)
