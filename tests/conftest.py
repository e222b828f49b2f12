"""What all tests share: the order in which they run, and which of them never run at the same time."""

import functools
import gc
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Before torch is loaded: on several threads, sums have other bits than on the one thread of a worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test is timed: the machine may be busy with others' work.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker for each core, and one more, as tests that start processes wait for these most of the time."""
    return (os.cpu_count() or 1) + (config.option.markexpr != "not slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the slow tests last, so that a plain mistake shows within minutes, and of those the long chains first.

    On several workers the chains come before all others: each keeps one worker busy for minutes and waits much of the
    time, so that it is done beside them.
    """
    beside = getattr(config.option, "loadgroup", False)

    def turn(item: pytest.Item) -> int:
        if not is_slow(item):
            return 1
        return 3 if chain(item) is None else 0 if beside else 2

    items.sort(key=turn)


@pytest.hookimpl(wrapper=True)
def pytest_collection_finish(session: pytest.Session) -> Iterator[None]:
    """On a worker: say which tests stay together, a file's quick ones and each chain of slow ones.

    The scheduler of `--dist loadgroup` reads that after an @ in their names, where xdist itself would write it if the
    names that pytest gives to tests were still text.
    """
    gc.freeze()  # the tests themselves and what they import stay to the end: no collection need look at them
    items = session.items
    if getattr(session.config.option, "loadgroup", False):
        session.items = [SimpleNamespace(nodeid=f"{item.nodeid}{together(item)}") for item in items]
    try:
        return (yield)
    finally:
        session.items = items


def together(item: pytest.Item) -> str:
    group = chain(item) or ("" if is_slow(item) else item.nodeid.partition("::")[0])
    return f"@{group}" if group else ""


def is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def chain(item: pytest.Item) -> str | None:
    """What a test may not run at the same time as others: the word that its mark `slow` has, if any."""
    marker = item.get_closest_marker("slow")
    return marker.args[0] if marker is not None and marker.args else None


class OneRay:
    """A Ray for all tests of a process that train on one that the workers themselves started: a start takes seconds.

    It lives while somebody uses it, and this is one more user beside the workers under test.
    """

    def __init__(self) -> None:
        self._cluster: Any = None

    def open(self) -> None:
        """Start it, if none is there."""
        import ray

        if not ray.is_initialized():
            from simulations.workers.cluster import Cluster

            self._cluster = Cluster(ray, None, 2)

    def close(self) -> None:
        """End it, for tests to which it matters who started Ray, and where."""
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None


@pytest.fixture(scope="session")
def one_ray() -> Iterator[OneRay]:
    """The Ray of this process."""
    kept = OneRay()
    yield kept
    kept.close()


@pytest.fixture(autouse=True)
def _ray_goes_on(request: pytest.FixtureRequest) -> None:
    """Keep Ray between those tests that need it."""
    if chain(request.node) == "ray":
        request.getfixturevalue("one_ray").open()


@pytest.fixture(scope="session", autouse=True)
def _images_are_read_once() -> Iterator[None]:
    """Keep the handwritten digits, which most small runs take longer to read than to train on."""
    from fedmtl.data import digits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "load_images", functools.cache(digits.load_images))
        yield


@pytest.fixture(scope="session", autouse=True)
def _disks_are_not_waited_for() -> Iterator[None]:
    """Leave what is written to the system: no test cuts the power, and a disk that others use takes its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def flower_grid() -> ModuleType:
    """The module `flower_grid`, loaded only for tests that need Flower."""
    return _beside("flower_grid")


@pytest.fixture(scope="session")
def malformed() -> ModuleType:
    """The module `malformed_updates`."""
    return _beside("malformed_updates")


def _beside(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
