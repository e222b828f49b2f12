"""What is known before a run of how long it will take, where nobody may have meant it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from simulations.experiment import Experiment
from strategies.core.strategy import Strategy

_MANY_JOBS = 100
"""Jobs of every client for one version that nobody is taken to have meant."""


def forewarnings(experiment: Experiment, strategy: Strategy) -> Sequence[str]:
    """What to say of an experiment before it runs, a sentence for each; empty for most.

    Parameters
    ----------
    experiment
        What is run.
    strategy
        Its strategy, which is asked for its scheduler alone.
    """
    scheduler, clients, key = strategy.scheduler, len(experiment.data.active), f"strategy {strategy.name!r}"
    said = [f"{key}: {remark}" for remark in scheduler.remarks(clients)]
    needed = scheduler.updates_per_version(clients)
    memory = 4 * experiment.layout.size * needed
    jobs = -(-needed // max(clients, 1))
    words = (
        f"a version waits for {needed:,} updates, {jobs:,} from each of {clients:,} clients, and keeps "
        f"{_bytes(memory)} of them meanwhile"
    )
    if jobs > _MANY_JOBS or memory > _memory():
        said.append(f"{key}: {words}; lower strategy.buffer_size, or wait as long")
    limit = experiment.config.stop.updates
    if limit is not None and limit < needed:
        said.append(f"stop.updates = {limit:,} ends the run before its first version: {words}")
    return said


def _memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _bytes(count: int) -> str:
    """A size in words."""
    units = ("bytes", "kB", "MB", "GB", "TB", "PB")
    power = min(len(units) - 1, (len(str(count)) - 1) // 3)
    return f"{count / 1000**power:,.3g} {units[power]}"
