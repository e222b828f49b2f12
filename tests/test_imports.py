"""The import rules of the house (docs/decisions/0005-one-way-imports.md)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ("fedmtl", "clients", "strategies", "simulations")
MODULES = sorted(path.relative_to(ROOT) for folder in HOUSE for path in (ROOT / folder).rglob("*.py"))

MAY_IMPORT = {
    "fedmtl": {"fedmtl"},
    "clients": {"clients", "fedmtl"},
    "strategies": {"strategies", "fedmtl"},
    "simulations": {"simulations", "strategies", "clients", "fedmtl"},
    "simulations.cli": {"fedmtl", "simulations.cli", "simulations", "strategies", "clients"},
}


def storey(module: str) -> str:
    """The part of the house that a module belongs to; the command line is the roof, not a room of fedmtl."""
    if module == "simulations.cli" or module.startswith("simulations.cli."):
        return "simulations.cli"
    return module.partition(".")[0]


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of everything a module imports, wherever in the module; `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_run_one_way(path: Path) -> None:
    allowed = MAY_IMPORT[storey(module_name(path))]
    wrong = [
        f"{path}:{line} imports {name}"
        for line, name in imported(path)
        if storey(name) in {*HOUSE, "simulations.cli"} and storey(name) not in allowed
    ]
    assert not wrong


def importers(package: str) -> set[str]:
    return {
        path.as_posix()
        for path in MODULES
        for _, name in imported(path)
        if name == package or name.startswith(f"{package}.")
    }


def test_only_server_client_and_flowers_engine_import_flwr() -> None:
    allowed = ("strategies/", "clients/", "simulations/flower/", "simulations/workers/")
    assert not {path for path in importers("flwr") if not path.startswith(allowed)}


def test_only_workers_import_ray() -> None:
    assert not {path for path in importers("ray") if not path.startswith("simulations/workers/")}


BARE = """
import sys, importlib.metadata as metadata, re

def closure(names):
    found = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        names |= {re.match(r"[A-Za-z0-9._-]+", need).group() for need in needs if "extra ==" not in need}
    return found

allowed = closure({"torch", "numpy"})
blocked = {
    package
    for package, owners in metadata.packages_distributions().items()
    if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & allowed
} - {"fedmtl", "clients", "strategies", "simulations"}
assert {"flwr", "ray", "pydantic", "pyarrow", "matplotlib", "sklearn"} <= blocked

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
"""Hides every installed package but torch, numpy and what these two need."""


def run_bare(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BARE + code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_packages_import_with_torch_and_numpy_alone() -> None:
    packages = "fedmtl, fedmtl.data, fedmtl.models, fedmtl.balancing, clients, strategies, simulations"
    result = run_bare(f"import {packages}")
    assert result.returncode == 0, result.stderr


def test_hiding_packages_hides_them() -> None:
    result = run_bare("import ray")
    assert "No module named 'ray'" in result.stderr


SIMULATION = """
import numpy as np, torch
from clients.trainer import LocalTrainer
from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel, TrainSettings
from fedmtl.tasks import Task
from simulations.devices import DEVICES, World
from simulations.fleet import SimulatedFleet
from simulations.workers.inline import InlineWorkers
from strategies.recipes.fedqs import fedqs
from strategies.core.loop import Loop
from strategies.task_weights import LocalBalancing

tasks = [Task("colour", "classification", outputs=3), Task("size", "regression")]
draw = torch.Generator().manual_seed(0)
def examples(n):
    features = torch.randn(n, 4, generator=draw)
    return Examples(features, (features[:, :3].argmax(1), features.sum(1)))
positions = np.arange(100).reshape(5, 20)
shards, held_out = Shards(list(positions[:, :15])), Shards(list(positions[:, 15:]))
data = FederatedData(tasks, examples(100), examples(50), shards, held_out, np.ones((5, 2), dtype=bool))
model = build_model("mlp", {"hidden": (8,)}, data.input_shape, tasks, seed=0)
layout = ParameterLayout.of(model)
strategy = fedqs(LocalBalancing("ntkmtl-sr"), buffer_size=2)
strategy.initialise(GlobalModel(0, layout.pack(model), layout), TrainSettings(), 0)
fleet = SimulatedFleet(data, DEVICES["uniform"](World(5, 0)), InlineWorkers(LocalTrainer(model, data)), layout)
Loop(strategy, fleet).run(lambda loop: "done" if loop.strategy.model.version == 6 else None)
assert strategy.model.version == 6 and torch.isfinite(strategy.model.vector).all() and fleet.now() > 0
"""


def test_a_simulation_runs_with_torch_and_numpy_alone() -> None:
    result = run_bare(SIMULATION)
    assert result.returncode == 0, result.stderr
