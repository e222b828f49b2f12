"""Every key says what it means and what is allowed, from one place, on the console and in the documentation."""

import re
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from fedmtl.components import Option, options_of
from simulations.cli.app import app
from simulations.cli.options import COMPONENTS, SECTIONS, keys_of
from strategies.recipes.custom import KINDS
from tools.options_page import options_page

UNITS = r"\b(in the unit of|in their unit|units|channels|seconds)\b"


def every_option() -> Iterator[tuple[str, Option]]:
    """Every key of every section, and every option of every component and part, with where it belongs."""
    for section in ("", *SECTIONS):
        yield from ((section, option) for option in keys_of(section))
    tables = [builders for named in COMPONENTS.values() for _, builders in named]
    for builders in (*tables, *(parts for parts, _ in KINDS.values())):
        for name, build in builders.items():
            yield from ((name, option) for option in options_of(build))


OPTIONS = {f"{owner}.{option.name}": option for owner, option in every_option()}


def fedmtl(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def has_row(shown: str, row: str) -> bool:
    return re.search(rf"^ +{row}", shown, re.MULTILINE) is not None


def test_every_key_has_a_meaning_and_every_number_a_range_or_a_unit() -> None:
    assert len(OPTIONS) > 300
    assert {"training.epochs", "stop.target.value", "records.ntk_every", ".seed", "dirichlet.alpha"} <= set(OPTIONS)
    assert [key for key, option in OPTIONS.items() if not option.param.help] == []
    numbers = [key for key, option in OPTIONS.items() if "number" in option.allowed]
    assert len(numbers) > 150
    boundless = [key for key in numbers if not OPTIONS[key].param.bounds]
    assert [key for key in boundless if not re.search(UNITS, OPTIONS[key].param.help)] == []


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_is_shown_with_every_key_its_default_range_and_meaning(section: str) -> None:
    shown = fedmtl("options", section)
    text = " ".join(shown.split())
    assert SECTIONS[section].split(".")[0] in text
    for option in keys_of(section):
        assert has_row(shown, f"{re.escape(option.name)} ")
        assert option.param.help.split()[0] in text
    for _, builders in COMPONENTS.get(section, ()):
        for name in builders:
            assert has_row(shown, f"{name} ")


def test_ranges_and_defaults_are_those_that_are_checked() -> None:
    assert has_row(fedmtl("options", "training"), r"momentum +0\.0 +number, >= 0, < 1 +heavy-ball")
    assert has_row(fedmtl("options", "stop"), r"versions +unset +whole number or unset, > 0 +versions of the")


def test_the_sections_and_the_options_of_what_a_key_names_are_shown() -> None:
    shown = fedmtl("options")
    assert all(has_row(shown, f"{name} ") for name in ("name", "seed", *SECTIONS))
    assert has_row(fedmtl("options", "data", "dirichlet"), r"alpha +0\.3 +number, > 0, <= 1e\+06 +concentration")
    assert fedmtl("options", "strategy", "fedqs") == fedmtl("strategies", "fedqs")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trainig"], "section = 'trainig' is unknown (did you mean 'training'?)"),
        (["data", "dirichle"], "data.source or partition = 'dirichle' is unknown (did you mean 'dirichlet'?)"),
        (["stop", "versions"], "[stop] names nothing that has options; its keys are shown by fedmtl options stop"),
    ],
)
def test_what_there_is_not_is_told(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["options", *arguments])
    assert result.exit_code == 2
    assert says in result.stderr


def test_the_parts_of_free_compositions_show_what_is_allowed() -> None:
    text = " ".join(fedmtl("strategies", "custom").split())
    assert "'reject' or" in text
    assert "(whole number, >= 1)" in text


def test_help_and_tables_hold_no_marks_of_other_programs() -> None:
    commands = [["--help"], *([name, "--help"] for name in ("run", "study", "ntk", "compare", "partition"))]
    tables = [["strategies"], ["strategies", "custom"], ["options", "data"]]
    for arguments in (*commands, *tables):
        shown = fedmtl(*arguments)
        assert "\\[" not in shown
        assert "``" not in shown
    assert "[default: no-overwrite]" in " ".join(fedmtl("run", "--help").split())


def test_the_page_of_the_documentation_has_the_same() -> None:
    page = options_page()
    for section in SECTIONS:
        assert f"## `[{section}]`" in page
        for option in keys_of(section):
            assert f"| `{option.name}` |" in page
            assert option.param.help.replace("|", "\\|") in page
