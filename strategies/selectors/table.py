"""Selectors by their configuration names, for free compositions."""

from __future__ import annotations

from collections.abc import Callable

from strategies.selectors import HeteroSelect, OortSelector, PacedSelector, Selector


def chance() -> None:
    """Chance in place of a selector: the next client is drawn at random from the idle ones."""
    return None


SELECTORS: dict[str, Callable[..., Selector | None]] = {
    "random": chance,
    "oort": OortSelector,
    "heteroselect": HeteroSelect,
    "curriculum": PacedSelector,
}
