"""Independent pieces of work on Ray, as many at a time as there are workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from simulations.workers.cluster import Cluster
from simulations.workers.ray import import_ray

T = TypeVar("T")


def ray_map(
    function: Callable[[T], Any], items: Iterable[T], *, workers: int, address: str | None = None
) -> Iterator[tuple[T, Any, Exception | None]]:
    """Call a function with each item on Ray; (item, result, None) or (item, None, fault) as each is done.

    Parameters
    ----------
    function
        A function of a module that the workers can import.
    items
        Taken only as fast as workers become free.
    workers
        Calls at a time; each takes one CPU.
    address
        Of a running Ray cluster; None starts Ray on this machine.
    """
    ray = import_ray()
    cluster = Cluster(ray, address, workers)
    try:
        call = ray.remote(num_cpus=1, max_retries=0, max_calls=0)(_guarded)
        waiting: dict[Any, T] = {}
        rest = iter(items)
        while True:
            while len(waiting) < workers and (item := next(rest, _END)) is not _END:
                waiting[call.remote(function, item)] = item
            if not waiting:
                return
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            item = waiting.pop(done)
            result, fault = _outcome(ray, done)
            yield item, result, fault
    finally:
        cluster.close()


_END: Any = object()


def _guarded(function: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None]:
    """The result, or what was raised: an exception by value keeps its type, where Ray would wrap it."""
    try:
        return function(item), None
    except Exception as error:  # handed to the caller, whatever it is
        return None, error


def _outcome(ray: Any, reference: Any) -> tuple[Any, Exception | None]:
    try:
        result, fault = ray.get(reference)
    except ray.exceptions.RayError as error:  # the worker itself died
        return None, error
    return result, fault
