"""The benchmarks of task balancing: the toy's losses, and that each runs by one command and tells what it should."""

import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(
        command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE, timeout=200
    ).stdout.splitlines()


@pytest.fixture(scope="module")
def toy() -> ModuleType:
    return load("toy")


GOLDEN = {
    (-8.5, 7.5): (0.655236, 7.900798),
    (0.0, 0.0): (0.0, 0.0),
    (9.0, 9.0): (0.794395, 6.691495),
    (-7.5, -0.5): (0.038881, -4.754484),
    (9.0, -1.0): (-0.883106, 2.814293),
}


def test_the_toys_losses_are_the_published_ones_at_the_five_starts(toy):
    assert tuple(GOLDEN) == toy.STARTS
    for start, expected in GOLDEN.items():
        assert toy.losses_and_gradients(*start)[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("point", [(-8.5, 7.5), (9.0, -1.0), (-7.5, -0.5), (3.0, 0.2), (-2.0, -9.0)])
def test_the_toys_gradients_are_those_of_its_losses(toy, point):
    _, gradients = toy.losses_and_gradients(*point)
    step = 1e-6
    for axis in (0, 1):
        up, down = ([value + sign * step * (k == axis) for k, value in enumerate(point)] for sign in (1, -1))
        pairs = zip(toy.losses_and_gradients(*up)[0], toy.losses_and_gradients(*down)[0], strict=True)
        slopes = [(one - other) / (2 * step) for one, other in pairs]
        # Differences of losses of size 10 in float64 over 2e-6.
        assert [gradients[0][axis], gradients[1][axis]] == pytest.approx(slopes, rel=1e-4, abs=1e-7)


@pytest.mark.slow
def test_every_balancer_descends_on_the_toy(toy):
    for name in toy.BALANCERS:
        end = toy.descend(name, (9.0, -1.0), 12)
        assert end.isfinite().all()
        assert not torch.equal(end, torch.tensor((9.0, -1.0), dtype=end.dtype)), name


def test_the_pareto_set_is_known_when_it_is_reached(toy):
    assert toy.on_pareto_set(torch.tensor([3.0, -8.36]))
    assert not toy.on_pareto_set(torch.tensor([3.0, -7.0]))
    assert not toy.on_pareto_set(torch.tensor([9.0, -8.36]))


@pytest.mark.slow
def test_the_toys_table_has_a_row_for_each_balancer():
    header, *rows = run("toy", "--names", "equal,ntkmtl", "--steps", "20")
    assert header.split()[0] == "balancer"
    assert [row.split()[0] for row in rows] == ["equal", "ntkmtl"]
    assert all(row.endswith("0/5") for row in rows)


@pytest.mark.slow
def test_the_digits_table_compares_with_single_tasks_that_are_trained_once(tmp_path):
    arguments = ("--names", "equal,ntkmtl", "--seeds", "2", "--epochs", "1", "--cache", str(tmp_path))
    first = run("digits_mtl", *arguments)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = run("digits_mtl", *arguments)
    assert len(kept) == 2
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    rows = {line.split()[0]: line.split()[1:] for line in first if line[:1].isalpha() and ":" not in line}
    assert list(rows) == ["single-task", "equal", "ntkmtl"]
    assert float(rows["single-task"][4]) == 0.0
    for row in rows.values():
        assert all(math.isfinite(float(value)) for value in row[:5])
    same = [line.split()[:8] for line in again if line[:1].isalpha() and ":" not in line]
    assert same == [[name, *row[:7]] for name, row in rows.items()]
