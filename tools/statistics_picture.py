"""Draw the worked picture of docs/partitions.md: each statistic of a partition on an example of three clients.

``python -m tools.statistics_picture`` writes docs/images/partition-statistics.png anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedmtl.partitions.dissimilarity import Dissimilarity, GradientSpread
from fedmtl.partitions.statistics import effective_classes, gini, jensen_shannon, total_variation, wasserstein
from fedmtl.plots.style import COLOURS, GREY, new_figure, save, styled

PICTURE = Path(__file__).resolve().parent.parent / "docs/images/partition-statistics.png"

COUNTS = np.array([[6, 2, 0, 0], [1, 1, 1, 1], [0, 0, 7, 5]])
"""Examples of four classes on three clients; the pictures look at the first one."""

VALUES = np.array([0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 5.0, 6.0])
OWNERS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
"""Eight regression targets, and whose they are."""

SIZES = COUNTS.sum(axis=1)

GRADIENTS = np.array([[3.0, 0.5], [2.0, 2.0], [-1.0, 1.5]])
"""The clients' gradients of a loss with two parameters."""

CLIENT, POOL = COLOURS[0], COLOURS[5]
SHARE = COUNTS / SIZES[:, None]
ALL = COUNTS.sum(axis=0) / COUNTS.sum()


def dissimilarity() -> Dissimilarity:
    """Of the three gradients, each of a client of its size."""
    spread = GradientSpread("example", 2)
    for gradient, size in zip(GRADIENTS, SIZES.tolist(), strict=True):
        spread.add(torch.from_numpy(gradient), size)
    return spread.dissimilarity()


@styled
def draw() -> Figure:
    """Six panels, a statistic in each."""
    figure, axes = new_figure(7.2, 2, 3)
    for panel, show in zip(axes, (_variation, _divergence, _classes, _distance, _imbalance, _gradients), strict=True):
        show(panel)
    return figure


def _variation(panel: Axes) -> None:
    place = np.arange(4)
    panel.bar(place - 0.2, SHARE[0], 0.4, color=CLIENT, label="client, p")
    panel.bar(place + 0.2, ALL, 0.4, color=POOL, label="pool, q")
    more = np.maximum(SHARE[0] - ALL, 0)
    panel.bar(place - 0.2, more, 0.4, bottom=SHARE[0] - more, color=COLOURS[1], label="p above q")
    panel.set_xticks(place)
    panel.set_xlabel("class")
    panel.set_ylabel("share of examples")
    panel.legend(fontsize=9)
    panel.set_title(f"total variation {total_variation(COUNTS)[0]:.2f}")


def _divergence(panel: Axes) -> None:
    def bits(p: np.ndarray) -> float:
        kept = p[p > 0]
        return float(-(kept * np.log2(kept)).sum())

    p, q, m = bits(SHARE[0]), bits(ALL), bits((SHARE[0] + ALL) / 2)
    mean = (p + q) / 2
    names = ["of p", "of q", "their mean", "of m = (p+q)/2"]
    panel.barh(names, [p, q, mean, m], color=[CLIENT, POOL, GREY, COLOURS[2]], height=0.6)
    panel.invert_yaxis()
    panel.barh(names[2], m - mean, left=mean, height=0.6, color=COLOURS[1])
    panel.annotate(f"{m - mean:.2f}", ((m + mean) / 2, 2), ha="center", va="center", color="white", fontsize=10)
    panel.grid(visible=False, axis="y")
    panel.set_xlabel("entropy, bits")
    panel.set_title(f"Jensen-Shannon {jensen_shannon(COUNTS)[0]:.2f} bits")


def _classes(panel: Axes) -> None:
    many = float(effective_classes(COUNTS)[0])
    panel.bar(np.arange(4) + 0.5, SHARE[0], 1.0, color=CLIENT, label="client, p", edgecolor="white")
    panel.bar(
        [many / 2], [1 / many], many, fill=False, edgecolor=COLOURS[1], linewidth=2, label=f"{many:.2f} equal classes"
    )
    panel.set_xticks(np.arange(5))
    panel.set_xlabel("classes")
    panel.set_ylabel("share of examples")
    panel.legend(fontsize=9)
    panel.set_title(f"effective classes {many:.2f}")


def _distance(panel: Axes) -> None:
    mine, pool = np.sort(VALUES[OWNERS == 0]), np.sort(VALUES)
    u = np.linspace(0, 1, 801)
    of_mine, of_pool = (values[np.minimum((u * len(values)).astype(int), len(values) - 1)] for values in (mine, pool))
    panel.fill_between(u, of_mine, of_pool, color=COLOURS[1], alpha=0.3, linewidth=0, label="to be moved")
    panel.plot(u, of_mine, color=CLIENT, label="client")
    panel.plot(u, of_pool, color=POOL, label="pool")
    panel.set_xlabel("share of examples")
    panel.set_ylabel("target up to there")
    panel.legend(fontsize=9)
    found = wasserstein(VALUES, OWNERS, 2)
    assert isinstance(found, np.ndarray)
    panel.set_title(f"Wasserstein {found[0] * VALUES.std():.2f}/{VALUES.std():.2f} = {found[0]:.2f}")


def _imbalance(panel: Axes) -> None:
    held = np.concatenate([[0], np.cumsum(np.sort(SIZES))]) / SIZES.sum()
    share = np.linspace(0, 1, len(held))
    # Of N clients the Lorenz curve has N + 1 points; twice the area between it and the diagonal is the coefficient.
    panel.fill_between(share, held, share, color=COLOURS[1], alpha=0.3, linewidth=0, label="half of it")
    panel.plot(share, share, color=GREY, linestyle="--", label="equal sizes")
    panel.plot(share, held, color=CLIENT, marker="o", label="clients")
    panel.set_xlabel("share of clients, smallest first")
    panel.set_ylabel("share of examples")
    panel.legend(fontsize=9, loc="upper left")
    panel.set_title(f"Gini of sizes {gini(SIZES):.2f}")


def _gradients(panel: Axes) -> None:
    found = dissimilarity()
    whole, even = SIZES @ GRADIENTS / SIZES.sum(), GRADIENTS.mean(axis=0)
    arrow = {"arrowstyle": "-|>", "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
    for gradient, size in zip(GRADIENTS, SIZES.tolist(), strict=True):
        panel.plot(*np.stack([even, gradient]).T, color=GREY, linestyle=":", linewidth=1.4)
        panel.annotate("", gradient, (0, 0), arrowprops={**arrow, "color": CLIENT})
        panel.annotate(f"n = {size}", gradient, xytext=(0, 4), textcoords="offset points", ha="center", fontsize=9)
    panel.annotate("", whole, (0, 0), arrowprops={**arrow, "color": COLOURS[1]})
    panel.plot([], [], color=CLIENT, label="clients")
    panel.plot([], [], color=COLOURS[1], label="of all examples")
    panel.plot(*even, "o", color="black", markersize=5, label="mean of clients")
    panel.plot([], [], color=GREY, linestyle=":", label="deviations")
    panel.set(xlim=(-1.6, 3.6), ylim=(-0.2, 4.2), xlabel="first parameter", ylabel="second parameter")
    panel.legend(fontsize=9, loc="upper right")
    assert isinstance(found.b, float)
    assert isinstance(found.sigma, float)
    panel.set_title(f"B {found.b:.2f}, sigma {found.sigma:.2f}")


if __name__ == "__main__":
    save(draw(), PICTURE)
