"""What all tests share: the quick ones run first."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# Before torch is loaded: on several threads, sums have other bits than on the one thread of a worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test is timed: the machine may be busy with others' work.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests last, so that a plain mistake shows within a minute."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def flower_grid() -> ModuleType:
    """The module `flower_grid`, loaded only for tests that need Flower."""
    spec = importlib.util.spec_from_file_location("flower_grid", Path(__file__).with_name("flower_grid.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
