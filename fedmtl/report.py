"""One page about a run that needs nothing but itself: pictures are inside, and there is no script."""

from __future__ import annotations

import base64
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fedmtl.errors import RunDirectoryError
from fedmtl.files import replacing
from fedmtl.plots import PLOTS, make_plots
from fedmtl.plots.style import Format
from fedmtl.records import read_summary
from fedmtl.records.divergence import divergence_words
from fedmtl.records.finals import window_words
from fedmtl.records.single_task import SINGLE_TASK, delta_m_words, percent

_GROUPS = {
    "clients": "last, all clients",
    "fast": "last, faster half",
    "slow": "last, slower half",
    "worst": "last, worst tenth",
}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; }
body { max-width: 1200px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
p.lead { margin-top: .25rem; color: #555; }
p.warning { border-left: 4px solid #D55E00; background: #FDF1E9; padding: .5rem 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid #eee; vertical-align: top; }
td.number, th.number { text-align: right; }
.wide { overflow-x: auto; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #555; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: 14px; }
"""


def write_report(
    directory: Path, summary: Mapping[str, Any] | None = None, formats: Sequence[Format] | None = None
) -> Path:
    """Draw a finished run's plots anew and write ``report.html``; returns its path.

    The page holds every picture that there is as PNG or SVG, and names the files of others.

    Parameters
    ----------
    directory
        Of the run.
    summary
        If it is not written yet.
    formats
        Of the pictures that are drawn; by default those of the run's ``records.pictures``, and PNG if these are none.

    Raises
    ------
    RunDirectoryError
        If the directory holds no finished run, or something cannot be written.
    """
    known = read_summary(directory) if summary is None else summary
    configuration = _read(directory / "experiment.toml")
    plots = make_plots(directory, known, _asked(configuration) if formats is None else formats)
    path = directory / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(_page(known, plots, configuration), encoding="utf-8")
    return path


def _asked(configuration: str) -> Sequence[Format]:
    """The formats that an experiment asks for, PNG if it asks for none."""
    try:
        records = tomllib.loads(configuration).get("records", {})
    except tomllib.TOMLDecodeError:
        records = {}
    return records.get("pictures") or ("png",)


def _page(summary: Mapping[str, Any], plots: Mapping[str, Sequence[Path]], configuration: str) -> str:
    name = escape(str(summary["name"]))
    figures = [
        f"<h2>{escape(plot.title)}</h2>{_figure(plots[plot.name], plot.caption)}"
        for plot in PLOTS
        if plot.name in plots
    ]
    packages = [[key, str(version)] for key, version in summary["packages"].items()]
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{name}</title><style>{_STYLE}</style></head><body>",
            f'<h1>{name}</h1><p class="lead">{escape(_lead(summary))}</p>{_divergence(summary)}',
            f"<h2>Run</h2>{_table((), _facts(summary))}",
            f"<h2>Final metrics</h2>{_table(*_metrics(summary))}<p>{escape(_means(summary))}</p>",
            *_single_task(summary),
            *figures,
            f"<h2>Configuration</h2><pre>{escape(configuration)}</pre>",
            f"<h2>Versions</h2>{_table((), packages)}</body></html>\n",
        ]
    )


def _lead(summary: Mapping[str, Any]) -> str:
    return f"Strategy {summary['strategy']}, {_seeds(summary)}. The run ended because {summary['ended']}."


def _seeds(summary: Mapping[str, Any]) -> str:
    """The run's seed, and those that hold something else fixed."""
    held = [f"{name} {seed}" for name, seed in summary.get("seeds", {}).items() if seed != summary["seed"]]
    return f"seed {summary['seed']}" + (f" ({', '.join(held)})" if held else "")


def _divergence(summary: Mapping[str, Any]) -> str:
    """A line that says so, if the run diverged."""
    diverged = summary.get("diverged")
    return f'<p class="warning">This run {escape(divergence_words(diverged))}.</p>' if diverged else ""


def _means(summary: Mapping[str, Any]) -> str:
    return f"Means are over {window_words(summary.get('mean_over'))}."


def _facts(summary: Mapping[str, Any]) -> list[list[str]]:
    updates, traffic, target = summary["updates"], summary["bytes"], summary["target"]
    facts = [
        ["Versions of the global model", f"{summary['versions']:,}"],
        ["Time" if "connections" in summary else "Virtual time", f"{summary['time']:,.1f} s"],
        ["Updates applied", f"{updates['applied']:,}"],
        ["Updates rejected", f"{updates['rejected']:,}"],
        ["Updates unsettled at the end", f"{updates['unsettled']:,}"],
        ["Traffic from clients, to clients", f"{traffic['up'] / 1e6:,.1f} MB, {traffic['down'] / 1e6:,.1f} MB"],
        ["Wall-clock time of the run", f"{summary['wall_seconds']:,.1f} s"],
    ]
    if "ntk_seconds" in summary:
        share = summary["ntk_seconds"] / summary["wall_seconds"]
        facts.append(["... of it for measuring kernels", f"{summary['ntk_seconds']:,.1f} s ({share:.1%})"])
    if (shift := summary.get("shift")) is not None:
        facts.append(
            ["Shift of the clients' features", f"{shift['kind']}, at most {shift['strength']:g} {shift['unit']}"]
        )
    if target is not None:
        reached = "not reached" if target["time"] is None else f"{target['time']:,.1f} s, version {target['version']:,}"
        facts.append([f"Target: {target['task']} at {target['value']:g}", reached])
    return facts


def _metrics(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    groups = {group: None for task in summary["tasks"] for group in task["groups"] if group != "test"}
    header = ["task", "metric", "last", "mean", "best", *(_GROUPS.get(group, group) for group in groups)]
    rows = [
        [
            task["name"],
            f"{task['metric']} ({'higher' if task['higher_is_better'] else 'lower'} is better)",
            *(_number(task[key]) for key in ("last", "mean_of_last", "best")),
            *(_number(task["groups"].get(group)) for group in groups),
        ]
        for task in summary["tasks"]
    ]
    return header, rows


def _single_task(summary: Mapping[str, Any]) -> list[str]:
    """What learning the tasks together changed, where the run has single-task baselines."""
    found = summary.get(SINGLE_TASK)
    if found is None:
        return []
    rows = [
        [
            task["name"],
            f"{task['metric']} ({'higher' if task['higher_is_better'] else 'lower'} is better)",
            _number(task["mean_of_last"]),
            _number(found["tasks"][task["name"]]["value"]),
            percent(found["tasks"][task["name"]]["change"]),
        ]
        for task in summary["tasks"]
    ]
    header = ["task", "metric", "all tasks together", "the task alone", "change (+ is worse)"]
    text = (
        f"Delta-m: {delta_m_words(found)}. {_means(summary)} The single-task models learned with the "
        " same data, devices, strategy, training and limits, each on the clients that own the task."
    )
    return [f"<h2>Against single-task models</h2>{_table(header, rows)}<p>{escape(text)}</p>"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells of columns after the second are numbers."""

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = ('class="number"' if place > 1 else "" for place in range(len(cells)))
        return "<tr>" + "".join(f"<{tag} {k}>{escape(c)}</{tag}>" for k, c in zip(kinds, cells, strict=True)) + "</tr>"

    head = f"<thead>{row(header, 'th')}</thead>" if header else ""
    return f'<div class="wide"><table>{head}<tbody>{"".join(row(cells, "td") for cells in rows)}</tbody></table></div>'


def _figure(files: Sequence[Path], caption: str) -> str:
    """A picture inside the page, or the names of its files if it was never drawn as PNG or SVG."""
    text = escape(caption)
    kinds = {".png": "image/png", ".svg": "image/svg+xml"}
    shown = next((path for kind in kinds if (path := files[0].with_suffix(kind)).is_file()), None)
    if shown is None:
        names = ", ".join(f"{path.parent.name}/{path.name}" for path in files)
        return f"<p>{escape(names)}: {text}</p>"
    data = base64.b64encode(shown.read_bytes()).decode("ascii")
    source = f"data:{kinds[shown.suffix]};base64,{data}"
    return f'<figure><img alt="{text}" src="{source}"><figcaption>{text}</figcaption></figure>'


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunDirectoryError(f"cannot read {path}: {error}") from None
