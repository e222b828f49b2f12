"""What the documents say is so: their commands run, their code works, their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow("ray")
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


def test_the_example_for_contributors_works(here: Path) -> None:
    from strategies.recipes.catalogue import STRATEGIES

    known = dict(STRATEGIES)
    names: dict[str, object] = {}
    try:
        exec(compile("\n".join(blocks("CONTRIBUTING.md", "python")), "CONTRIBUTING.md", "exec"), names)
        assert (here / "runs/fresh/summary.json").is_file()
    finally:
        STRATEGIES.clear()
        STRATEGIES.update(known)


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
