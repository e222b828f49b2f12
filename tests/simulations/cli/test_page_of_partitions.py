"""What docs/partitions.md says is so: its commands run, and its figures are those of the functions."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fedmtl.partitions import PARTITIONS
from fedmtl.partitions.statistics import effective_classes, gini, jensen_shannon, total_variation, wasserstein
from simulations.cli.app import app
from tools.statistics_picture import ALL, COUNTS, GRADIENTS, OWNERS, SHARE, SIZES, VALUES

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/partitions.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    commands += re.findall(r"`(fedmtl partition [^`]*--set[^`]*)`", PAGE)
    assert len(commands) == 3
    for command in commands:
        fedmtl, *arguments = shlex.split(command)
        assert fedmtl == "fedmtl"
        assert CliRunner().invoke(app, [*arguments, "--set", "data.clients=20"]).exit_code == 0, command
    assert {path.name for path in tmp_path.iterdir()} == {"partition.png", "partition.csv"}


def test_its_figures_are_those_of_the_functions() -> None:
    def bits(p: np.ndarray) -> float:
        return float(-(p[p > 0] * np.log2(p[p > 0])).sum())

    distance = wasserstein(VALUES, OWNERS, 2)
    assert isinstance(distance, np.ndarray)
    entropies = [bits(p) for p in (SHARE[0], ALL, (SHARE[0] + ALL) / 2)]
    text = " ".join(PAGE.split())
    for said in (
        " and ".join(", ".join(map(str, row)) for row in COUNTS.tolist()) + " examples of four classes",
        f"is {total_variation(COUNTS)[0]:.2f} of its examples",
        "entropy is {:.2f} bits, the pool's {:.2f}. Their mixture has {:.2f}".format(*entropies),
        f"which is {jensen_shannon(COUNTS)[0]:.2f} more",
        f"as diverse as {effective_classes(COUNTS)[0]:.2f} equally frequent ones",
        f"lines is {distance[0] * VALUES.std():.2f}, and the pool's standard deviation {VALUES.std():.2f}",
        f"under the diagonal is {gini(SIZES):.2f}",
        "gradients are " + ", ".join(f"({a:g}, {b:g})" for a, b in GRADIENTS[:2]) + " and (-1, 1.5)",
    ):
        assert said in text


def test_it_tells_of_every_partition_and_links_a_picture_that_is_there_and_small() -> None:
    table = PAGE.partition("## The partitions")[2]
    assert [name for name in PARTITIONS if f"`{name}`" not in table] == []
    (picture,) = re.findall(r"!\[.*\]\((.*)\)", PAGE)
    assert (ROOT / "docs" / picture).stat().st_size < 200_000
