"""The documentation's page of options, read from the code that checks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fedmtl.components import Option, options_of, summary_of
from simulations.cli.options import COMPONENTS, SECTIONS, in_toml, keys_of

INTRODUCTION = """# Options

An experiment is one TOML file. Every key has a default, so an empty file is the main job. `--set section.key=value`
overrides a key, and `--set section.key=unset` takes back what a file says of it. A part of a key that holds dots stands
in quotes, as in TOML. Where a section names a component, that component's options are keys of the section. The console
shows the same with `fedmtl options`.
"""


def options_page() -> str:
    """The page, in Markdown."""
    parts = [INTRODUCTION, "## Top level\n", _options_table(keys_of())]
    for section, about in SECTIONS.items():
        parts += [f"## `[{section}]`\n", f"{about}\n", _options_table(keys_of(section))]
        for key, builders in COMPONENTS.get(section, ()):
            for build in dict.fromkeys(builders.values()):
                names = ", ".join(f'"{name}"' for name, known in builders.items() if known is build)
                parts.append(_component(f"{key} = {names}", build))
    return "\n".join(parts)


def _component(title: str, build: Callable[..., Any]) -> str:
    return f"### `{title}`\n\n{summary_of(build)}\n\n{_options_table(options_of(build))}"


def _options_table(options: Sequence[Option]) -> str:
    return _table(("key", "default", "allowed", "meaning", "default from"), map(_row, options)) if options else ""


def _row(option: Option) -> tuple[str, ...]:
    default = "" if option.required else f"`{in_toml(option.default)}`"
    return f"`{option.name}`", default, option.allowed, option.param.help, option.param.source


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
