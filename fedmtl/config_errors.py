"""What is wrong with a configuration, in words that say what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Path = tuple[Any, ...]


def by_key(faults: Iterable[ErrorDetails], key: Callable[[Path], Path]) -> dict[Path, list[ErrorDetails]]:
    """Faults that pydantic found, grouped by the key of the configuration that they are about.

    Pydantic's own path leads further, into lists and into every alternative of a union.
    """
    groups: dict[Path, list[ErrorDetails]] = {}
    for fault in faults:
        groups.setdefault(key(fault["loc"]), []).append(fault)
    return groups


def explain(key: str, faults: Sequence[ErrorDetails], known: Iterable[str], owner: str = "", meaning: str = "") -> str:
    """What is wrong with a key, in one line: the value, what is allowed, the nearest valid key or value.

    Parameters
    ----------
    key
        The key as the user writes it, with its section.
    faults
        What pydantic found there; several if the value fits none of several types.
    known
        The keys that may stand in this place.
    owner, meaning
        Whose key it is, as in ``" of 'dirichlet'"``, and what it means.
    """
    fault = faults[0]
    if fault["type"] == "extra_forbidden":
        known = list(known)
        hint = did_you_mean(key.rpartition(".")[2], known)
        return f"{key} is not a key{owner}{hint}; known: {', '.join(known) or 'none'}"
    if fault["type"] == "missing":
        return f"{key} is missing" + (f" ({meaning})" if meaning else "")
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key} = {fault['input']!r}: is a section, so write [{key}] and its keys below"
    expected = " or ".join(dict.fromkeys(_expected(one) for one in faults))
    choices = [
        choice for one in faults for choice in re.findall(r"'([^']*)'", str(one.get("ctx", {}).get("expected", "")))
    ]
    hint = did_you_mean(fault["input"], choices) if isinstance(fault["input"], str) else ""
    return f"{key} = {fault['input']!r}: should be {expected}{hint}" + (f" ({meaning})" if meaning else "")


_PLAIN = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": 'a list, such as ["a", "b"]',
    "tuple_type": "a list, such as [1, 2]",
    "none_required": "left out",
}


def _expected(fault: ErrorDetails) -> str:
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return _PLAIN.get(fault["type"], message)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
