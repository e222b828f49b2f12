"""Every public class has an example in its docstring, and every example gives what it says."""

import doctest
import importlib
import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, is_typeddict

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ("fedmtl", "clients", "strategies", "simulations")

COMPLETE = ("fedmtl.balancing", "strategies")
"""Packages whose every public class must have an example; elsewhere, the examples that there are run."""

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def is_complete(module: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in COMPLETE)


def modules() -> list[str]:
    """The modules of the complete packages, and those others that have an example, which alone are worth importing."""
    names = []
    for path in (path for package in HOUSE for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if is_complete(name) or ">>> " in path.read_text(encoding="utf-8"):
            names.append(name)
    return sorted(names)


def own_classes(module: ModuleType) -> Iterator[type]:
    """The public classes that a module defines."""
    for name, value in vars(module).items():
        if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_"):
            yield value


def needs_example(cls: type[Any]) -> bool:
    """Whether a class does something by itself, and is not just the shape or the names of a value."""
    is_shape = is_typeddict(cls) or getattr(cls, "_is_protocol", False) or issubclass(cls, Exception | Enum)
    is_named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    return not (is_shape or is_named_tuple or inspect.isabstract(cls))


def examples_in(module: str) -> list[doctest.DocTest]:
    """A test for each docstring of the module that has an example.

    It starts without any name, as a reader does: an example imports what it uses.
    """
    loaded = importlib.import_module(module)
    found = doctest.DocTestFinder(exclude_empty=True).find(loaded, module, globs={})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("module", [name for name in modules() if is_complete(name)])
def test_every_public_class_has_an_example(module: str) -> None:
    run = {test.name for test in examples_in(module)}
    needed = [cls.__qualname__ for cls in own_classes(importlib.import_module(module)) if needs_example(cls)]
    assert not [name for name in needed if f"{module}.{name}" not in run]


@pytest.mark.parametrize("module", modules())
def test_the_examples_give_what_they_say(module: str) -> None:
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in examples_in(module):
        runner.run(test, out=report.append)
    assert not report, "".join(report)
