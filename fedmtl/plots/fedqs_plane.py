"""FedQS's plane: how fast each client is among the others, and how far its direction is from the server's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedmtl.plots.jobs import evenly
from fedmtl.plots.run_tables import RunTables
from fedmtl.plots.style import GREY, TYPE_LOOKS, log_scale, new_figure, styled

_MOMENTS = 4
_CLIENTS = 2000
"""Points of a panel, at most."""
_DEGREES = ("angle", "ref_tensors")


@dataclass(frozen=True, eq=False)
class Plane:
    """Where jobs lie in FedQS's plane; every array has an entry for each job whose client measured a similarity.

    Attributes
    ----------
    client, arrived
        The job's client, and when its update arrived.
    type_name
        The type that the client gave itself for the job; empty where it had none yet.
    share, similarity
        f and s: the client's share of the aggregated updates when the job was ordered, and the measure between the last
        server step and its last update.
    mean_share, mean_similarity
        f_bar and s_bar, as they were sent with the order; NaN before there was any.
    """

    client: np.ndarray
    arrived: np.ndarray
    type_name: np.ndarray
    share: np.ndarray
    similarity: np.ndarray
    mean_share: np.ndarray
    mean_similarity: np.ndarray

    @property
    def typed(self) -> np.ndarray:
        """Whether the job has a place: a type, and so all four numbers."""
        known = np.isfinite(self.mean_share) & np.isfinite(self.mean_similarity)
        found: np.ndarray = (self.type_name != "") & (self.share > 0) & known & (self.mean_similarity > 0)
        return found


def plane(run: RunTables) -> Plane:
    """Every job's place, worked out anew from the run's tables as the server did it then."""
    updates, versions = run.updates, run.aggregations["version"].to_numpy()
    client, base, arrived = (updates[name].to_numpy() for name in ("client", "base_version", "arrived_at"))
    never = int(versions[-1]) + 1 if len(versions) else 1
    applied = pc.fill_null(updates["applied_version"], never).to_numpy()
    went_in = applied < never
    own = np.sort(client[went_in] * (never + 1) + applied[went_in])
    before = np.searchsorted(own, client * (never + 1) + base, "right") - np.searchsorted(own, client * (never + 1))
    total = np.searchsorted(np.sort(applied[went_in]), base, "right")
    _, first = np.unique(own // (never + 1), return_index=True)
    active = np.searchsorted(np.sort(own[first] % (never + 1)), base, "right")
    everyone = _strategy_option(run, "fbar") == "all"
    clients = _clients(run) if everyone else active
    mean_similarity = np.concatenate([[np.nan], _mean_similarity(run, applied)])
    chosen = updates["similarity"].is_valid().to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        share, mean_share = before / total, np.where(total > 0, 1.0 / clients, np.nan)
    return Plane(
        client[chosen],
        arrived[chosen],
        np.array(updates["client_type"].to_pylist(), dtype=object)[chosen],
        share[chosen],
        updates["similarity"].to_numpy(zero_copy_only=False)[chosen],
        mean_share[chosen],
        mean_similarity[np.searchsorted(versions, base, "right")][chosen],
    )


def _mean_similarity(run: RunTables, applied: np.ndarray) -> np.ndarray:
    """s_bar after each version: the mean of the clients' latest similarities among the updates that had arrived."""
    told = (run.updates["similarity"].is_valid().to_numpy()) & ~run.updates["rejected"].is_valid().to_numpy()
    rows = np.flatnonzero(told)
    arrived = run.updates["arrived_at"].to_numpy()[rows]
    rows = rows[np.lexsort((applied[rows], arrived))]
    latest: dict[int, float] = {}
    total, sums, counts = 0.0, [0.0], [0]
    columns = run.updates.select(["client", "similarity"]).take(pa.array(rows))
    for client, value in zip(columns["client"].to_pylist(), columns["similarity"].to_pylist(), strict=True):
        total += value - latest.get(client, 0.0)
        latest[client] = value
        sums.append(total)
        counts.append(len(latest))
    arrived, applied = np.sort(arrived), applied[rows]
    known = np.searchsorted(arrived, run.aggregations["time"].to_numpy(), "left")
    until = np.searchsorted(arrived, run.aggregations["time"].to_numpy(), "right")
    for place, version in enumerate(run.aggregations["version"].to_pylist()):
        # Of those that came at the very time of the step, the ones that it had seen.
        known[place] += int((applied[known[place] : until[place]] <= version).sum())
    number = np.array(counts)[known]
    return np.where(number > 0, np.array(sums)[known] / np.maximum(number, 1), np.nan)


@styled
def draw(run: RunTables) -> Figure | None:
    """Each client's latest job at four moments; None unless the run recorded convergence and clients were typed."""
    if not run.convergence or not run.updates.num_rows:
        return None
    jobs = plane(run)
    if not jobs.typed.any():
        return None
    start, end = float(jobs.arrived[jobs.typed].min()), float(jobs.arrived.max())
    moments = [start + (end - start) * (number + 1) / _MOMENTS for number in range(_MOMENTS)]
    shown = [_latest(jobs, moment) for moment in moments]
    figure, panels = new_figure(7.4, 2, 2, sharex=True, sharey=True)
    for panel, moment, rows in zip(panels, moments, shown, strict=True):
        _fill(panel, run, jobs, moment, rows)
    every = np.concatenate(shown)
    every = every[jobs.typed[every]]
    _axes(panels, jobs.share[every] / jobs.mean_share[every], jobs.similarity[every] / jobs.mean_similarity[every])
    measure = _strategy_option(run, "similarity") or "dissimilarity"
    for panel in panels[2:]:
        panel.set_xlabel("share of the updates / its mean over clients")
    for panel in panels[::2]:
        panel.set_ylabel(f"{'angle' if measure in _DEGREES else measure} to the server's step\n/ its mean over clients")
    types = [name for name in TYPE_LOOKS if name in set(jobs.type_name[every])]
    looks = [Line2D([], [], linestyle="", label=_LABELS[name], markersize=8, **TYPE_LOOKS[name]) for name in types]
    figure.legend(handles=looks, loc="outside upper center", ncols=3)
    return figure


_LABELS = {
    "FBC": "FBC: fast, biased",
    "FUC": "FUC: fast, unbiased",
    "SUC": "SUC: slow, unbiased",
    "SBC-1": "SBC-1: slow, biased by staleness",
    "SBC-2": "SBC-2: slow, biased by its data",
}


def _latest(jobs: Plane, moment: float) -> np.ndarray:
    """Each client's newest job that had come back by a moment, at most `_CLIENTS` of them, evenly chosen."""
    there = np.flatnonzero(jobs.arrived <= moment)
    there = there[np.argsort(jobs.arrived[there], kind="stable")]
    _, last = np.unique(jobs.client[there][::-1], return_index=True)
    rows = there[::-1][last]
    return evenly(rows, _CLIENTS)


def _fill(panel: Axes, run: RunTables, jobs: Plane, moment: float, rows: np.ndarray) -> None:
    typed = rows[jobs.typed[rows]]
    x, y = jobs.share[typed] / jobs.mean_share[typed], jobs.similarity[typed] / jobs.mean_similarity[typed]
    many = len(typed) > 300
    for name, look in TYPE_LOOKS.items():
        mine = jobs.type_name[typed] == name
        panel.plot(x[mine], y[mine], linestyle="", markersize=4 if many else 6, alpha=0.5 if many else 0.75, **look)
    panel.axvline(1.0, color=GREY, linewidth=1.0, zorder=0)
    panel.axhline(1.0, color=GREY, linewidth=1.0, zorder=0)
    made = run.aggregations.filter(pc.less_equal(run.aggregations["time"], moment)).num_rows
    version = run.aggregations["version"][made - 1].as_py() if made else 0
    clients = len(np.unique(jobs.client[jobs.arrived <= moment]))
    cut = f"{len(rows):,} of {clients:,} clients, evenly chosen" if len(rows) < clients else f"{clients:,} clients"
    without = f", {len(rows) - len(typed):,} without a type" if len(typed) < len(rows) else ""
    panel.set_title(f"{moment:,.4g} s, version {version:,}: {cut}{without}", fontsize=10.5)


def _axes(panels: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Both axes around 1, the mean; that of shares is logarithmic: some client may be a hundred times as fast."""
    for panel in panels:
        log_scale(panel, "x")
    panels[0].set_xlim(min(x.min(), 0.5) / 1.25, max(x.max(), 2.0) * 1.25)
    reach = max(1.12 * float(np.abs(y - 1.0).max()), 0.1)
    panels[0].set_ylim(max(1.0 - reach, -0.02), 1.0 + reach)


def _strategy_option(run: RunTables, name: str) -> Any:
    """An option of FedQS's policy, as the run's configuration has it; None where it has none."""
    strategy = run.configuration.get("strategy", {})
    policy = strategy.get("policy")
    return (policy if isinstance(policy, Mapping) else strategy).get(name)


def _clients(run: RunTables) -> int:
    """How many clients the run has; without a table of devices, those that were heard of."""
    return len(pc.unique(run.updates["client"])) if run.devices is None else run.devices.num_rows
