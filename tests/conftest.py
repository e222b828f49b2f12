"""What all tests share: the quick ones run first."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow tests last, so that a plain mistake shows within a minute."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
