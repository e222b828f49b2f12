"""``fedmtl options``: every key of an experiment, with default, range and meaning, read from where it is checked."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fedmtl.components import Option, choose, fields_of, options_of, summary_of
from fedmtl.compression import COMPRESSORS
from fedmtl.config import ExperimentConfig, section_at
from fedmtl.data.sources import SOURCES
from fedmtl.errors import ConfigError
from fedmtl.models import MODELS
from fedmtl.partitions import PARTITIONS
from simulations.cli.console import new_console
from simulations.devices import DEVICES
from strategies.aggregators.robust import OPTIONS, FlowerRule
from strategies.recipes.catalogue import STRATEGIES
from strategies.task_weights import BALANCING

Builders = Mapping[str, Callable[..., Any]]

COMPONENTS: Mapping[str, tuple[tuple[str, Builders], ...]] = {
    "data": (("source", SOURCES), ("partition", PARTITIONS)),
    "model": (("name", MODELS),),
    "devices": (("kind", DEVICES),),
    "strategy": (("name", STRATEGIES), ("aggregator", dict.fromkeys(OPTIONS, FlowerRule))),
    "compression": (("name", COMPRESSORS),),
    "balancing": (("name", BALANCING),),
}
"""For each section that names components, the keys that do so, and what they may name."""

SECTIONS: Mapping[str, str] = {
    name: inspect.getdoc(section) or ""
    for name in ExperimentConfig.model_fields
    if (section := section_at((name,))) is not None
}
"""The sections, and what each is about."""


def keys_of(section: str = "") -> list[Option]:
    """The keys that a section always has, those of sections inside it as ``section.key``; without a name the top's."""
    model = section_at((section,) if section else ())
    assert model is not None
    found = []
    for option in fields_of(model):
        inner = section_at((section, option.name) if section else (option.name,))
        if inner is None:
            found.append(option)
        elif section:
            found += [
                dataclasses.replace(o, name=f"{option.name}.{o.name}", default=option.default) for o in fields_of(inner)
            ]
    return found


def show_options(section: str | None, name: str | None) -> None:
    """The sections of an experiment; the keys of one, and the components that it may name; the options of one of these.

    Raises
    ------
    ConfigError
        If there is no such section, or no such component in it.
    """
    console = new_console()
    if section is None:
        console.print("Keys at the top of an experiment:")
        console.print(option_table(keys_of()))
        table = _table("section", "what it is about")
        for known, about in SECTIONS.items():
            table.add_row(known, about)
        console.print(table)
        console.print("fedmtl options SECTION shows the keys of a section; --set SECTION.KEY=VALUE sets one, and")
        console.print("--set SECTION.KEY=unset takes back what a file or a preset says.")
    elif name is None:
        _show_section(console, section)
    else:
        _show_component(console, section, name)


def _show_section(console: Console, section: str) -> None:
    choose(dict.fromkeys(SECTIONS, dict), section, "section")
    console.print(f"[{section}]: {SECTIONS[section]}")
    console.print(option_table(keys_of(section)))
    for key, builders in COMPONENTS.get(section, ()):
        table = _table(key, "what it is")
        for name, build in builders.items():
            table.add_row(name, words(summary_of(build)))
        console.print(table)
    if section in COMPONENTS:
        console.print(f"fedmtl options {section} NAME shows the options of one of these: keys of [{section}], too.")


def _show_component(console: Console, section: str, name: str) -> None:
    choose(dict.fromkeys(SECTIONS, dict), section, "section")
    tables = COMPONENTS.get(section, ())
    if not tables:
        raise ConfigError(f"[{section}] names nothing that has options; its keys are shown by fedmtl options {section}")
    every = {known: build for _, builders in tables for known, build in builders.items()}
    build = choose(every, name, f"{section}.{' or '.join(key for key, _ in tables)}")
    key = next(key for key, builders in tables if name in builders)
    console.print(words(summary_of(build)))
    console.print(f"Set with --set {section}.KEY=VALUE, or below [{section}] beside {key} = {name!r}.")
    console.print(option_table(options_of(build)))


def option_table(options: Iterable[Option]) -> Table:
    """A row for each option; where its default comes from is said where that is not the same of all."""
    rows = [
        (option.name, "" if option.required else in_toml(option.default), option.allowed, words(option.param.help))
        for option in options
    ]
    sources = [option.param.source for option in options]
    several = len(set(sources)) > 1
    table = _table("key", "default", "allowed", "meaning", *(["default from"] if several else []))
    for row, source in zip(rows, sources, strict=True):
        table.add_row(*row, *([source] if several else []))
    return table


def _table(*header: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(header):
        table.add_column(name, no_wrap=place == 0)
    return table


def words(text: str) -> str:
    """A line of documentation without its marks."""
    return text.replace("``", "")


def in_toml(value: Any) -> str:
    """A default as it would stand in a file; ``unset`` if there is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_toml, value))}]"
    return "unset" if value is None else str(value)
