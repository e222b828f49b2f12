"""The client types of FedQS, and the numbers as which they travel: what a client sends up are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TYPE_NUMBERS: Mapping[str, float] = MappingProxyType({"FBC": 1.0, "FUC": 2.0, "SUC": 3.0, "SBC-1": 4.0, "SBC-2": 5.0})
"""Fast or slow, biased or unbiased clients (:mod:`clients.policies.fedqs`)."""

_NAMES = {number: name for name, number in TYPE_NUMBERS.items()}


def type_name(number: float | None) -> str:
    """The type of that number; an empty string for None and for a number that no type has."""
    return "" if number is None else _NAMES.get(number, "")
