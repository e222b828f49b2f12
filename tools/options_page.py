"""The documentation's page of options, read from the code that checks them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from fedmtl.components import Option, options_of, summary_of
from fedmtl.compression import COMPRESSORS
from fedmtl.config import ExperimentConfig
from fedmtl.data.sources import SOURCES
from fedmtl.models import MODELS
from fedmtl.partitions import PARTITIONS
from simulations.devices import DEVICES
from strategies.aggregators.robust import OPTIONS, FlowerRule
from strategies.recipes.catalogue import STRATEGIES
from strategies.task_weights import BALANCING

COMPONENTS: Mapping[str, tuple[tuple[str, Mapping[str, Callable[..., Any]]], ...]] = {
    "data": (("source", SOURCES), ("partition", PARTITIONS)),
    "model": (("name", MODELS),),
    "devices": (("kind", DEVICES),),
    "strategy": (("name", STRATEGIES), ("aggregator", {'", "'.join(OPTIONS): FlowerRule})),
    "compression": (("name", COMPRESSORS),),
    "balancing": (("name", BALANCING),),
}
"""For each section, the keys that name a component, and what they may name."""

INTRODUCTION = """# Options

An experiment is one TOML file. Every key has a default, so an empty file is the main job. `--set section.key=value`
overrides a key. Where a section names a component, that component's options are keys of the section.
"""


def options_page() -> str:
    """The page, in Markdown."""
    fields = ExperimentConfig.model_fields
    top = {name: field for name, field in fields.items() if not hasattr(field.annotation, "model_fields")}
    parts = [INTRODUCTION, "## Top level\n", _fields_table(top)]
    for section, field in fields.items():
        if section in top:
            continue
        model: Any = field.annotation
        parts += [f"## `[{section}]`\n", f"{inspect.getdoc(model)}\n", _fields_table(model.model_fields)]
        for key, table in COMPONENTS.get(section, ()):
            parts += [_component(f'{key} = "{name}"', build) for name, build in table.items()]
    return "\n".join(parts)


def _fields_table(fields: Mapping[str, FieldInfo]) -> str:
    return _table(("key", "default"), ((f"`{name}`", f"`{_text(field.default)}`") for name, field in fields.items()))


def _component(title: str, build: Callable[..., Any]) -> str:
    options = options_of(build)
    table = _table(("key", "default", "allowed", "meaning", "default from"), map(_row, options)) if options else ""
    return f"### `{title}`\n\n{summary_of(build)}\n\n{table}"


def _row(option: Option) -> tuple[str, ...]:
    default = "" if option.required else f"`{_text(option.default)}`"
    return f"`{option.name}`", default, option.allowed, option.param.help, option.param.source


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return "unset" if value is None else str(value)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
