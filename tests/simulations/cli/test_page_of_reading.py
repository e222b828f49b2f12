"""What docs/reading-non-iid.md says to run runs, and leaves what the page goes on to look at."""

import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from simulations.cli.app import app

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/reading-non-iid.md").read_text(encoding="utf-8")
SHORT = ["--set", "data.clients=20", "--set", "stop.versions=12"]


@pytest.mark.slow
def test_its_commands_run_and_leave_what_it_looks_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert [command[:2] for command in commands] == [
        ["fedmtl", name] for name in ("partition", "run", "run", "compare", "run", "compare")
    ]
    for _, name, *arguments in commands:
        short = [] if name == "compare" else SHORT[: 2 if name == "partition" else 4]
        result = CliRunner().invoke(app, [name, *arguments, *short])
        assert result.exit_code == 0, result.output
    assert (tmp_path / "partition.png").is_file()
    assert (tmp_path / "partition.csv").is_file()
    columns = pq.read_schema(tmp_path / "runs/fedqs/aggregations.parquet").names
    assert set(re.findall(r"`(\w+_(?:norm|cosine|fast|variance)|drift|dissimilarity)`", PAGE)) <= set(columns)
    for run in ("fedbuff", "normalised", "fedqs"):
        assert {"drift.png", "participation.png"} <= {
            path.name for path in (tmp_path / "runs" / run / "plots").iterdir()
        }
    norms = [
        sum(pq.read_table(tmp_path / "runs" / run / "aggregations.parquet")["step_norm"].to_pylist())
        for run in ("fedbuff", "normalised", "fedqs")
    ]
    assert norms[0] < norms[1], "the discount shortens FedBuff's steps"
    assert norms[0] < norms[2], "the discount shortens FedBuff's steps"
