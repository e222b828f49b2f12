"""The columns of a study's results, beside its axes and the seed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One task of one run.

    Attributes
    ----------
    final
        The final metric on the test set (:mod:`fedmtl.records.finals`). This, `same_time`, `worst_clients`,
        `time_to_target` and `stable_at` are not a number in a run that diverged.
    same_time
        The metric when the first of the labels that are compared ended, in this place and with this seed: mean over the
        evaluations of the last tenth of the time until then, or the last before it. Not a number if there is none.
    best
        The best value.
    worst_clients
        The final metric of the worst tenth of the clients.
    time_to_target, stable_at
        Virtual seconds until the target was first reached, and until it was reached for good; not a number if never.
    drops_5, drops_10
        How often the accuracy fell by more than 5 and 10 points from one evaluation to the next; -1 for errors.
    diverged_at
        The version at which the run was seen to have diverged; -1 if it did not.
    """

    task: str
    metric: str
    final: float
    same_time: float
    best: float
    worst_clients: float
    time_to_target: float
    stable_at: float
    drops_5: int
    drops_10: int
    diverged_at: int


def diverged_words(diverged: int, runs: int) -> str:
    """That so many of a label's runs diverged: the mean over the others would be of those that were lucky."""
    return "diverged" if diverged == runs else f"diverged ({diverged} of {runs})"


COMPARISONS = ("single_task", "change", "delta_m", "delta_m_by_task", "mean_rank")
"""Columns of the results: of a task the single-task value and the change from it (per cent, positive is worse); of its
run, and so the same for all its tasks, delta-m by metric and by task, and the mean rank. Null where there is none."""
