"""Names are any text: markup, commands to terminals and formulas in them are shown to the letter, or as escapes."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from safetensors import safe_open
from typer.testing import CliRunner

from fedmtl.records import read_summary, read_table
from fedmtl.tasks import Task
from simulations.cli.app import app

SHOWN = {
    "height [mm]": "height [mm]",
    "height [cm]": "height [cm]",
    "[/red] $a$ $b$": "[/red] $a$ $b$",
    ":smile:": ":smile:",
    "training": "training",
    "type": "type",
    "education.num": "education.num",
    "_modules": "_modules",
    "../up/": "../up/",
    "<script>alert(1)</script>": "<script>alert(1)</script>",
    "\x1b[2J\a\u202e": r"\x1b[2J\x07\u202e",
    "höhe": "höhe",
    "hühe": "hühe",
}
"""Names of columns, which are tasks, and what stands for them on a console."""

NAMES = (*SHOWN, "", "x" * 300 + "a", "x" * 300 + "b")


def fedmtl(*arguments: str | Path, charset: str = "utf-8") -> Result:
    return CliRunner(charset=charset).invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment whose tasks have these names."""
    folder = tmp_path_factory.mktemp("names")
    x = np.random.default_rng(0).normal(size=(160, 2)).astype(np.float32)
    columns = {"a": x[:, 0], "b": x[:, 1], **{name: x[:, 0] * k + x[:, 1] for k, name in enumerate(NAMES)}}
    pq.write_table(pa.table(columns), folder / "names.parquet")
    targets = "\n".join(f'{json.dumps(name)} = "regression"' for name in NAMES)
    (folder / "names.toml").write_text(
        f'name = "names"\nstrategy.name = "fedavg"\nbalancing.name = "equal"\nmodel.name = "linear"\n'
        f'stop.versions = 2\nrecords.evaluate_every = 1\n[data]\nsource = "files"\npath = "{folder}/names.parquet"\n'
        f'clients = 3\npartition = "iid"\nfeatures = ["a", "b"]\n[data.targets]\n{targets}\n',
        encoding="utf-8",
    )
    return folder / "names.toml"


@pytest.fixture(scope="module")
def ended(experiment: Path) -> tuple[Path, Result]:
    """A run of it, and what that printed."""
    out = experiment.parent / "run [1]"
    result = fedmtl("run", experiment, "--out", out)
    assert result.exit_code == 0, result.output
    return out, result


@pytest.mark.slow
def test_the_console_shows_every_name_to_the_letter_or_as_an_escape(ended: tuple[Path, Result]) -> None:
    _, result = ended
    rows = [line.strip() for line in result.stdout.splitlines() if "mse (lower is better)" in line]
    found = {row.partition("  ")[0] for row in rows}
    assert len(rows) == len(NAMES)
    assert found >= set(SHOWN.values())
    assert not set("\x1b\a\u202e") & set(result.stdout)
    text = "".join(result.stdout.split())
    assert {"x" * 50 in text, "xa" in text, "xb" in text} == {True}  # long names are not cut where they differ
    assert "run [1]" in result.stdout


def test_files_have_the_names_as_they_are_and_the_module_safe_ones(ended: tuple[Path, Result]) -> None:
    out, _ = ended
    assert [task["name"] for task in read_summary(out)["tasks"]] == list(NAMES)
    assert set(read_table(out, "evaluations")["task"].to_pylist()) == set(NAMES)
    with safe_open(out / "model.safetensors", "pt") as file:
        heads = {name.split(".")[1] for name in file.keys()}  # noqa: SIM118 (not a mapping)
    assert heads == {Task(name, "regression").key for name in NAMES}


def test_the_report_shows_names_and_runs_none(ended: tuple[Path, Result]) -> None:
    page = (ended[0] / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "height [mm]" in page


def test_an_ascii_console_tells_tasks_apart(
    experiment: Path, ended: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = experiment.parent / "other"
    result = fedmtl("run", experiment, "--set", "records.pictures=[]", "--out", out, "--seed", "1", charset="ascii")
    assert result.exit_code == 0
    assert r"h\xf6he" in result.stdout
    assert r"h\xfche" in result.stdout
    monkeypatch.setattr("fedmtl.compare._draw", lambda runs, out: [])  # names in pictures have tests of their own
    compared = fedmtl("compare", ended[0], out, "--target", "height [mm]=0.5", "--out", out / "c", charset="ascii")
    assert compared.exit_code == 0
    assert "height [mm]: time to 0.5" in compared.stdout
    assert "run [1]" in compared.stdout


def test_baselines_of_any_name_are_trained_kept_and_shown(experiment: Path) -> None:
    few = ["--set", f"tasks.names={json.dumps(['../up/', 'height [mm]'])}", "--set", "records.pictures=[]"]
    result = fedmtl("run", experiment, *few, "--baselines", "--out", experiment.parent / "b" / "run")
    assert result.exit_code == 0
    assert "single-task baseline 1 of 2: ../up/\n" in result.stdout
    kept = [path.name for path in (experiment.parent / "b").rglob("*") if path.parent.name == "baselines"]
    assert len(kept) == 2
    assert all(re.fullmatch(r"[0-9a-f]+", name) for name in kept)


@pytest.mark.slow
def test_kernels_of_any_name_are_measured_and_drawn(experiment: Path) -> None:
    few = ["--set", f"tasks.names={json.dumps(['education.num', '[/red] $a$ $b$'])}"]
    out = experiment.parent / "ntk"
    result = fedmtl("ntk", experiment, *few, "--examples", "8", "--steps", "2", "--clients", "2", "--out", out)
    assert result.exit_code == 0
    assert result.stdout.count("[/red] $a$ $b$") == 3
    assert (out / "alignment-tasks.png").is_file()


def test_a_mistake_in_a_name_is_told_to_the_letter(experiment: Path) -> None:
    result = fedmtl("run", experiment, "--set", "tasks.only=height [\x1b[2Jm]")
    assert result.exit_code == 2
    assert "\x1b" not in result.output
    assert "height [mm]" in result.stderr
    result = fedmtl("run", "--no-such-\x1b[2J")
    assert result.exit_code == 2
    assert r"\x1b[2J" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", "data.path=caf\udce9.npz"],
        ["--set", "name=\udce9"],
        ["--set", "tasks.names=['\udce9']"],
        ["--out", "caf\udce9"],
        ["caf\udce9.toml"],
        ["--set", r'data.path="a\u0000b.npz"', "--set", "data.source=files"],
        ["--set", r'records.dir="a\u0000b"'],
        ["--out", "x" * 300],
        ["--out", "/".join(["x" * 200] * 30)],
        ["--resume", "x" * 300],
        ["x" * 300],
        ["--set", f"name={'x' * 300}"],
        ["--set", f"records.dir={'x' * 300}"],
        ["--set", "data.source=files", "--set", f"data.path={'x' * 300}.npz", "--set", "data.targets={y='binary'}"],
    ],
    ids=lambda arguments: ascii(" ".join(arguments))[:60],
)
def test_a_name_that_no_file_can_have_is_told_and_nothing_is_written(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = fedmtl("run", "--set", "data.clients=5", *arguments)
    assert result.exit_code == 2
    assert result.stderr.isascii()
    assert len(result.stderr) > 20
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []
