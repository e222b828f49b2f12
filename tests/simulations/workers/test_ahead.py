"""Which jobs go out next."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, JobKey, TrainOrder, TrainSettings
from simulations.workers.ahead import COHORT, Waiting, cohort_size
from simulations.workers.base import Job

NOWHERE = slice(0, 0)
BASE = GlobalModel(0, torch.zeros(0), ParameterLayout((), NOWHERE, (), NOWHERE))


def job(client: int, arrival: float) -> Job:
    order = TrainOrder(client, 0, BASE, None, TrainSettings(), None, Balancing(), "plain", {}, {}, 0)
    return Job(order, {}, arrival)


def waiting(*arrivals: float) -> Waiting:
    jobs = Waiting()
    for client, arrival in enumerate(arrivals):
        jobs.add(job(client, arrival))
    return jobs


def clients(jobs: list[Job]) -> list[int]:
    return [job.order.client for job in jobs]


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0]), min_size=1, max_size=20), st.integers(1, 5))
def test_jobs_leave_in_the_order_of_arrival_and_ties_in_the_order_of_submission(
    arrivals: list[float], size: int
) -> None:
    jobs = waiting(*arrivals)
    left = []
    while jobs:
        cohort = jobs.cohort(size)
        assert 1 <= len(cohort) <= size
        left += clients(cohort)
    assert left == sorted(range(len(arrivals)), key=lambda client: arrivals[client])


def test_a_hastened_job_is_first_and_leaves_once() -> None:
    jobs = waiting(1.0, 2.0, 3.0)
    jobs.hasten(JobKey(2, 0))
    assert clients(jobs.cohort(2)) == [2, 0]
    assert clients(jobs.cohort(2)) == [1]
    assert not jobs


def test_a_removed_job_never_leaves() -> None:
    jobs = waiting(1.0, 2.0, 3.0)
    assert jobs.remove(JobKey(0, 0)).order.client == 0
    assert JobKey(0, 0) not in jobs
    assert clients(jobs.cohort(5)) == [1, 2]


def test_a_job_that_must_go_alone_shares_no_cohort() -> None:
    jobs = waiting(1.0, 3.0, 4.0)
    jobs.add(job(7, 2.0), alone=True)
    assert [clients(jobs.cohort(5)) for _ in range(3)] == [[0], [7], [1, 2]]


@given(st.integers(0, 1000), st.integers(1, 64))
def test_a_share_takes_part_of_what_waits_and_never_more_than_a_cohort(count: int, shares: int) -> None:
    size = cohort_size(count, shares)
    assert 1 <= size <= COHORT
    assert size * shares >= count or size == COHORT
