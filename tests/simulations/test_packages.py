"""The wheel and the Flower app bundle run by themselves, with the presets and studies that ship in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("fedmtl", "clients", "strategies", "simulations")
PARTS = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")
TREE = """
import fedmtl, clients, strategies, simulations, sys
print(*{path for package in (fedmtl, clients, strategies, simulations) for path in package.__path__}, sep="\\n")
"""


def do(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """Run a command; what it printed."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built from, for setuptools leaves things behind."""
    copy = tmp_path_factory.mktemp("sources") / "fedmtl"
    copy.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, copy / part)
    return copy


@pytest.fixture(scope="module", params=["wheel", "bundle"])
def unpacked(request: pytest.FixtureRequest, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, built and unpacked into a folder of its own."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "wheel":
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        do([*pip, "--wheel-dir", folder, sources], folder)
        (archive,) = folder.glob("fedmtl-*.whl")
    else:
        do([Path(sys.executable).parent / "flwr", "build", "--app", sources], folder, FLWR_HOME=str(folder / "home"))
        (archive,) = folder.glob("*.fab")
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.mark.slow
def test_the_packages_hold_all_that_the_sources_do(unpacked: Path, sources: Path) -> None:
    wanted = {
        path.relative_to(sources)
        for package in PACKAGES
        for path in (sources / package).rglob("*")
        if path.suffix in (".py", ".toml")
    }
    assert len([path for path in wanted if path.suffix == ".toml"]) >= 6
    missing = [str(path) for path in sorted(wanted) if not (unpacked / path).is_file()]
    assert not missing


@pytest.mark.slow("ray")
def test_a_preset_and_a_study_run_from_nothing_but_the_archive(unpacked: Path, tmp_path: Path) -> None:
    """The study from the wheel alone: a bundle is for `flwr run`, which runs no studies."""
    here = {"PYTHONPATH": str(unpacked)}
    places = do([sys.executable, "-c", TREE], tmp_path, **here).split()
    assert {Path(place).parent for place in places} == {unpacked}
    fedmtl = [sys.executable, "-m", "fedmtl"]
    short = ["--set", "stop.versions=2", "--set", "model.name=linear"]
    do([*fedmtl, "run", "--preset", "fedqs-reference", *short], tmp_path, **here)
    assert (tmp_path / "runs/fedqs-reference/summary.json").is_file()
    if unpacked.parent.name.startswith("bundle"):
        return
    quick = unpacked / "simulations/studies/quick.toml"
    text = quick.read_text()
    for key, usual, few in (("seeds", 2, 1), ("updates", 1500, 20), ("clients", 30, 9)):
        assert f"{key} = {usual}\n" in text
        text = text.replace(f"{key} = {usual}\n", f"{key} = {few}\n")
    quick.write_text(text)  # in the unpacked copy: the study is found there by its name
    do([*fedmtl, "study", "quick", "--workers", "2"], tmp_path, **here)
    assert len(list((tmp_path / "studies/quick/runs").glob("*/summary.json"))) == 6
    assert (tmp_path / "studies/quick/table.md").is_file()
