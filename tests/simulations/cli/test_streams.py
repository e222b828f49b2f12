"""Output is optional: a reader that leaves, a full device or a closed stream costs no run."""

import io
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simulations.cli.app import app
from simulations.cli.streams import _Lossy

SMALL = ["--set", "data.clients=12", "--set", "strategy.buffer_size=3", "--set", "stop.versions=4"]
SMALL += ["--set", "records.pictures=[]"]
FULL = "/dev/full"


def fedmtl(*arguments: str | Path, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process, behind redirections as a shell writes them."""
    command = ["bash", "-c", f'exec "$@" {shell}', "bash", sys.executable, "-m", "fedmtl", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, env={**os.environ, **environment}
    )


def text_stream(file: _Lossy) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(file), encoding="utf-8", line_buffering=True)


def test_writing_to_a_full_device_or_to_nobody_never_fails() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for number, reason in ((writer, "Broken pipe"), (os.open(FULL, os.O_WRONLY), "No space left on device")):
        file = _Lossy(number, "w")
        with text_stream(file) as stream:
            for _ in range(3):
                print("a line", file=stream)
        assert file.fault is not None
        assert file.fault.strerror == reason


def test_what_a_slow_reader_shares_without_blocking_arrives_whole() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    found: list[str] = []
    with io.TextIOWrapper(io.FileIO(reader), encoding="utf-8") as source:
        thread = threading.Thread(target=lambda: found.append(source.read()))
        with text_stream(_Lossy(writer, "w")) as stream:
            thread.start()
            print("x" * 1_000_000, file=stream)
        thread.join()
    assert found == ["x" * 1_000_000 + "\n"]


@pytest.mark.slow
def test_a_run_goes_on_when_its_reader_leaves(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fedmtl", "run", *SMALL, "--out", tmp_path / "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before a line was printed: every line meets a broken pipe
    errors = process.stderr.read()
    assert process.wait(timeout=240) == 0
    assert errors == ""
    assert (tmp_path / "run" / "summary.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("shell", [f">{FULL} 2>{FULL}", ">&- 2>&- <&-"])
def test_a_run_goes_on_without_a_place_to_print(shell: str, tmp_path: Path) -> None:
    result = fedmtl("run", *SMALL, "--out", tmp_path / "run", shell=shell)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (tmp_path / "run" / "summary.json").is_file()
    # No stream's number was given to a file: what is printed would stand in it.
    assert (tmp_path / "run" / "partition.parquet").read_bytes().startswith(b"PAR1")


@pytest.mark.slow
def test_a_command_that_only_prints_fails_on_a_full_device() -> None:
    full = fedmtl("presets", "fedqs-reference", shell=f">{FULL}")
    assert full.returncode == 1
    assert full.stderr == "standard output: No space left on device; what was printed is incomplete\n"


@pytest.mark.slow
def test_a_mistake_has_its_exit_code_where_nobody_hears_of_it() -> None:
    assert fedmtl("run", "--set", "data.clients=0", shell="2>&-").returncode == 2


@pytest.mark.slow
def test_a_console_that_knows_ascii_alone_shows_everything_in_ascii(tmp_path: Path) -> None:
    result = fedmtl("partition", "--set", "data.clients=12", "--out", tmp_path / "p.png", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert result.stdout.isascii()
    assert "12 clients with " in result.stdout


@pytest.mark.slow
def test_a_run_on_a_full_disk_names_the_file_and_how_to_go_on_and_does(tmp_path: Path) -> None:
    out, often = tmp_path / "run", ["--set", "records.checkpoint_every=1"]
    result = subprocess.run(
        [sys.executable, "-m", "fedmtl", "run", *SMALL, *often, "--out", out],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),  # no file grows beyond
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"cannot write {out / 'checkpoint/state.safetensors'}: ")
    assert "File too large" in result.stderr
    assert result.stderr.endswith(f"; then, to go on: fedmtl run --resume {out}\n")
    assert CliRunner().invoke(app, ["run", "--resume", str(out)], catch_exceptions=False).exit_code == 0
    assert (out / "summary.json").is_file()
