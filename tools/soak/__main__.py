"""``python -m tools.soak``: do what has not been done of a soak of this commit, and write what became of it.

Its log is ``.soak/COMMIT.jsonl``; the page that goes into the documents is printed and written beside it.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from tools.soak.configurations import PART as CONFIGURATIONS
from tools.soak.configurations import configurations
from tools.soak.fleets import PART as FLEETS
from tools.soak.fleets import fleets
from tools.soak.kills import PART as KILLS
from tools.soak.kills import kills
from tools.soak.pieces import GOOD, Log, Outcome, Piece, commit, done

ROOT = Path(__file__).resolve().parents[2]
SECONDS = {CONFIGURATIONS: 300.0, KILLS: 300.0, FLEETS: 1800.0}
"""What a piece of each part may take, on a busy machine, before it counts as stuck."""

EVERY = 20.0
"""Seconds between two lines on how far it is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak; the exit status: 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument("--configurations", type=int, default=1000, metavar="N", help="random configurations")
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="runs that are killed")
    parser.add_argument("--fleets", type=int, default=None, metavar="N", help="honest fleets; default: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--log", type=Path, default=None, help="default: .soak/COMMIT.jsonl")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    head = commit(ROOT)
    path = given.log or ROOT / ".soak" / f"{head}.jsonl"
    log = Log(path)
    pieces = [*configurations(given.configurations), *kills(given.kills), *fleets(given.fleets)]
    for part in (CONFIGURATIONS, KILLS, FLEETS):
        _do([piece for piece in pieces if piece.part == part], log, workers=given.workers, seconds=SECONDS[part])
    wanted = {(piece.part, piece.number) for piece in pieces}
    outcomes = [one for one in log.outcomes if (one.part, one.number) in wanted]
    command = shlex.join(["python", "-m", "tools.soak", *(sys.argv[1:] if arguments is None else arguments)])
    text = page(outcomes, command, head)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    _say(text)
    return int(any(one.outcome not in GOOD for one in outcomes))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _do(pieces: Sequence[Piece], log: Log, *, workers: int, seconds: float) -> None:
    if not pieces:
        return
    begun = shown = time.monotonic()
    before = sum(log.has(piece) for piece in pieces)
    for count, outcome in enumerate(done(pieces, log, workers=workers, seconds=seconds), start=1):
        if outcome.outcome not in GOOD:
            _say(f"{outcome.part} {outcome.number}: {outcome.outcome}\n{outcome.said}\n{outcome.about}")
        now = time.monotonic()
        if now > shown + EVERY:
            shown = now
            left = (now - begun) / count * (len(pieces) - before - count)
            _say(f"{outcome.part}: {before + count:,} of {len(pieces):,}, {left / 60:.0f} min left")


def page(outcomes: Sequence[Outcome], command: str, head: str) -> str:
    """What became of a soak, as a page of the documents."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
    lines = [
        "# The soak",
        "",
        f"`{command}` (`make soak`) on commit {head}; {machine}.",
        "",
        "| part | pieces | success | refusal | faults | minutes of one core |",
        "|---|---|---|---|---|---|",
    ]
    for part in (CONFIGURATIONS, KILLS, FLEETS):
        mine = [one for one in outcomes if one.part == part]
        counts = Counter(one.outcome for one in mine)
        faults = len(mine) - counts["success"] - counts["refusal"]
        minutes = sum(one.seconds for one in mine) / 60
        lines.append(f"| {part} | {len(mine)} | {counts['success']} | {counts['refusal']} | {faults} | {minutes:.0f} |")
    figures = [(one, one.figures) for one in outcomes if one.figures]
    lines += ["", f"- Configurations that diverged and said so: {sum(bool(f.get('diverged')) for _, f in figures)}."]
    lines += [f"- Runs were killed {sum(f.get('killed', 0) for _, f in figures)} times in all."]
    lines += _ratios(outcomes)
    if wrong := [one for one in outcomes if one.outcome not in GOOD]:
        lines += ["", "## Faults", ""]
        lines += [f"- {one.part} {one.number}: {one.outcome}: {one.said.strip().splitlines()[-1]}" for one in wrong]
    return "\n".join(lines) + "\n"


def _ratios(outcomes: Sequence[Outcome]) -> list[str]:
    measured = [(one.figures["ratios"], one.about) for one in outcomes if one.figures and "ratios" in one.figures]
    lines = []
    for where in ("model", "head") if measured else ():
        ratio, about = max((ratios[where], about) for ratios, about in measured)
        lines.append(f"- The longest honest update was {ratio:.1f} times the running median ({where}; {about}).")
    return lines


if __name__ == "__main__":
    sys.exit(main())
