"""The command as a process: signals, exit codes and what goes to which stream."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LONG = ["--set", "stop.versions=100000", "--set", "records.checkpoint_every=5", "--set", "records.pictures=[]"]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "fedmtl", *map(str, arguments)]


def finish(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run in ``tmp_path / "run"`` that would go on for long, and has made its first checkpoint."""
    run = tmp_path / "run"
    pipe = subprocess.PIPE
    with subprocess.Popen(command("run", *LONG, "--out", run), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            patience = time.monotonic() + 120
            while not (run / "checkpoint").is_dir() or not any((run / "checkpoint").iterdir()):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < patience, "no checkpoint within two minutes"
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_says_how_to_go_on_and_does(
    endless: subprocess.Popen[str], number: signal.Signals, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    endless.send_signal(number)
    out, err = endless.communicate(timeout=60)
    assert endless.returncode == 130
    assert f"interrupted; to go on: fedmtl run --resume {run}\n" in out
    assert "Traceback" not in err
    assert not (run / "summary.json").exists()

    text = (run / "experiment.toml").read_text()
    (run / "experiment.toml").write_text(text.replace("versions = 100000", "versions = 1"))
    resumed = finish("run", "--resume", run)
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "summary.json").is_file()
    assert (run / "report.html").is_file()


@pytest.mark.slow
def test_a_run_under_way_is_not_overwritten_by_accident(endless: subprocess.Popen[str], tmp_path: Path) -> None:
    other = finish("run", "--out", tmp_path / "run")
    assert other.returncode == 2
    assert f"is in use by process {endless.pid} on" in other.stderr
    assert endless.poll() is None


@pytest.mark.slow
def test_a_wrong_input_exits_with_two_and_says_so_on_standard_error(tmp_path: Path) -> None:
    result = finish("run", "--set", "data.clients=0", "--out", tmp_path / "run")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "--set data.clients=0: data.clients = 0: should be greater than 0 (how many clients there are)\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_directory_that_cannot_be_written_exits_with_two() -> None:
    result = finish("run", "--set", "stop.versions=1", "--out", "/proc/fedmtl")  # not even root can write there
    assert result.returncode == 2
    assert "cannot write to /proc/fedmtl" in result.stderr


@pytest.mark.slow
def test_a_faulty_experiment_to_resume_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text("[data]\nclients = 0\n")
    result = finish("run", "--resume", tmp_path)
    assert result.returncode == 2
    assert f"{tmp_path / 'experiment.toml'}: data.clients = 0: should be greater than 0" in result.stderr
