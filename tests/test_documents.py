"""What the documents say is so: their commands run, their code works, their links lead somewhere."""

import doctest
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from clients.policies import CLIENT_HALVES
from fedmtl.balancing import BALANCERS
from fedmtl.data.sources import SOURCES
from fedmtl.models import MODELS
from fedmtl.partitions import PARTITIONS
from simulations.devices import DEVICES
from strategies.aggregators.table import AGGREGATORS
from strategies.policies.table import POLICIES
from strategies.recipes.catalogue import STRATEGIES
from strategies.schedulers.table import SCHEDULERS
from strategies.selectors.table import SELECTORS
from strategies.weightings.table import WEIGHTINGS

ROOT = Path(__file__).resolve().parent.parent
BY_CI = {"make run\n", "make test\n"}
"""Blocks of the README that .ci/run runs itself."""


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the environment that the tests run in."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_command_of_the_readme_runs(here: Path) -> None:
    shell = blocks("README.md", "sh")
    assert set(shell) >= BY_CI
    script = "\n".join(block for block in shell if block not in BY_CI)
    result = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (here / "partition.png").is_file()
    for name in ("skewed", "fedbuff-digits", "fedqs", "fedbuff", "fedavg-safl"):
        assert (here / "runs" / name / "report.html").is_file()


def test_ci_runs_the_two_commands_of_the_readme() -> None:
    script = (ROOT / ".ci/run").read_text().splitlines()
    assert {line + "\n" for line in script} >= BY_CI


@pytest.mark.slow
def test_the_python_of_the_readme_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("README.md", "python"):
        exec(compile(block, "README.md", "exec"), {})
    assert "'name': 'digit'" in capsys.readouterr().out
    assert (here / "runs/from-python/report.html").is_file()


@pytest.fixture
def unregistered() -> Iterator[None]:
    """Afterwards, every table of parts holds what it held before."""
    tables: list[dict[str, Any]] = [
        STRATEGIES,
        SCHEDULERS,
        SELECTORS,
        AGGREGATORS,
        WEIGHTINGS,
        POLICIES,
        CLIENT_HALVES,
        BALANCERS,
        SOURCES,
        PARTITIONS,
        DEVICES,
        MODELS,
    ]
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


@dataclass(frozen=True)
class Section:
    """A section of a document for contributors, with the files that it writes, by their paths, and its runs."""

    title: str
    text: str
    files: dict[str, str]
    runs: list[str]


def sections(document: str) -> list[Section]:
    """The sections of a document that have code; a block whose first line is the comment of a path is a file."""
    found = []
    for text in re.split(r"^(?=##+ )", (ROOT / document).read_text(), flags=re.MULTILINE):
        files, runs = {}, []
        for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if path := re.match(r"# (\w[\w/]+\.py)\n", code):
                files[path[1]] = code
            else:
                runs.append(code)
        if files or runs:
            found.append(Section(text.partition("\n")[0].lstrip("# "), text, files, runs))
    return found


EXAMPLES = {
    f"{document}: {section.title}": section
    for document in ("CONTRIBUTING.md", "docs/adding-parts.md")
    for section in sections(document)
}


def write_module(path: str, code: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module as if that file were there, so that its name is importable."""
    module = ModuleType(path.removesuffix(".py").replace("/", "."))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, path, "exec"), vars(module))
    return module


@pytest.mark.slow
@pytest.mark.usefixtures("unregistered")
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_for_contributors_work(example: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = EXAMPLES[example]
    failures: list[str] = []
    for path, code in section.files.items():
        module = write_module(path, code, monkeypatch)
        for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs={}):
            doctest.DocTestRunner().run(test, out=failures.append)
    assert not failures, "".join(failures)
    for code in section.runs:
        exec(compile(code, example, "exec"), {})
    assert [run.name for run in here.glob("runs/*") if (run / "summary.json").is_file()]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_for_contributors_is_new_and_says_which_line_goes_where(example: str) -> None:
    section = EXAMPLES[example]
    named = [ROOT / file for file in re.findall(r"`([\w/]+\.py)`", section.text)]
    for path in section.files:
        assert not (ROOT / path).exists()
        assert [table for table in named if table.parent == (ROOT / path).parent and table.is_file()]
    registered = re.findall(r'^[A-Z_]+\["([\w-]+)"\] = ', "".join(section.runs), re.MULTILINE)
    assert registered
    assert [name for name in registered if f'`"{name}": ' not in section.text] == []


@pytest.mark.slow
def test_the_examples_for_contributors_pass_every_check(tmp_path: Path) -> None:
    for package in ("fedmtl", "clients", "strategies", "simulations"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    files = []
    for number, section in enumerate(EXAMPLES.values()):
        script = {f"run_{number}.py": '"""A short run."""\n\n' + "\n".join(section.runs)}
        for path, code in {**section.files, **script}.items():
            (tmp_path / path).write_text(code)
            files.append(path)
    for check in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        command = [sys.executable, "-m", *check, *files]
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr


def test_every_row_of_the_table_of_parts_has_a_section_and_every_section_a_row() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| \[([\w ]+)\]\(docs/adding-parts\.md#([\w-]+)\) \|", guide, re.MULTILINE)
    titles = re.findall(r"^## (.*)$", (ROOT / "docs/adding-parts.md").read_text(), re.MULTILINE)
    assert [name.capitalize() for name, _ in rows] == titles == [s.title for s in sections("docs/adding-parts.md")]
    assert [anchor for _, anchor in rows] == [title.lower().replace(" ", "-") for title in titles]
    assert len(rows) > 10


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/index.md"])
def test_pictures_and_files_that_a_document_links_to_exist(document: str) -> None:
    targets = re.findall(r"\]\(((?!https?:)[^)#]+)", (ROOT / document).read_text())
    missing = [target for target in targets if not (ROOT / document).parent.joinpath(target).exists()]
    assert not missing


def test_the_readmes_picture_is_small() -> None:
    assert (ROOT / "docs/images/main-job.png").stat().st_size < 300_000


def test_the_map_of_the_house_names_files_that_exist() -> None:
    named = re.findall(
        r"`((?:fedmtl|clients|strategies|simulations|tests|docs)/[\w/.]*)`", (ROOT / "CONTRIBUTING.md").read_text()
    )
    assert len(named) > 20
    missing = [name for name in named if not (ROOT / name).exists() and "NAME" not in name]
    assert not missing


def test_files_and_names_of_modules_in_the_documents_exist() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*/*.md")]
    text = "".join(page.read_text() for page in pages if "_build" not in page.parts)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    paths = re.findall(r"`((?:fedmtl|clients|strategies|simulations|tests|docs|tools)/[\w/.-]*)`", prose)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for name in re.findall(r"`((?:fedmtl|clients|strategies|simulations)(?:\.\w+)+)`", prose):
        pkgutil.resolve_name(name)


def test_the_lock_file_pins_every_package_and_names_no_place() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)?", line) for line in lines)
    assert "torch==2.13.0" in lines
    assert not [line for line in lines if line.startswith(("nvidia", "triton"))]


def test_every_test_that_the_page_of_properties_names_exists() -> None:
    page = (ROOT / "docs/properties.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", page)
    assert len(named) == page.count("::test_") > 200
    missing = []
    for file, path in named:
        lines = (ROOT / file).read_text().splitlines() if (ROOT / file).is_file() else []
        for name in path.split("::"):
            start = next((n for n, line in enumerate(lines) if re.match(rf"\s*(def|class) {name}\b", line)), None)
            lines = [] if start is None else lines[start + 1 :]
            if start is None:
                missing.append(f"{file}::{path}")
                break
    assert not missing
