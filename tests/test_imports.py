"""The rules of the house: who may import whom, what lies where, how long a file is.

They are explained in docs/decisions/0005-one-way-imports.md. Long because it holds what an interpreter is asked.
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
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

DOORS = {"fedmtl.__main__": {"simulations.cli"}}
"""Modules that lie below what they import, for they do nothing but pass it on when asked."""

FLOORS = (
    {"core"},
    {"selectors", "flower"},
    {"weightings", "schedulers"},
    {"aggregators"},
    {"policies"},
    {"task_weights"},
    {"recipes"},
)
"""The rooms of strategies/ from the ground up: each imports from the floors below its own."""

LONGEST = 300
"""Lines of a file that need no reason."""

REASON = "Long because"
"""How the sentence begins, in the docstring at the top of a longer file, that gives the reason."""


def storey(module: str) -> str:
    """The part of the house that a module belongs to; the command line is the roof."""
    if module == "simulations.cli" or module.startswith("simulations.cli."):
        return "simulations.cli"
    return module.partition(".")[0]


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): (ROOT / path).read_text() for path in MODULES}


@functools.cache
def imported(source: str) -> tuple[tuple[int, str], ...]:
    """Line and name of everything a module imports, wherever in the module; `from a import b` counts as a.b."""
    return tuple(_imported(source))


def _imported(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def arrows(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """From each module to the modules it imports, for type checkers alone or inside functions, too.

    Who imports a submodule by `from package import submodule` has an arrow to it, and none to the package.
    """
    found: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = {name for _, name in imported(source)}
        targets = {name if name in sources else name.rpartition(".")[0] for name in names}
        found[module] = targets & sources.keys()
    return found


def circle(sources: Mapping[str, str]) -> list[str]:
    """A circle of imports, each module imported by the next; empty if there is none."""
    try:
        TopologicalSorter(arrows(sources)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_there_is_no_circle_of_imports() -> None:
    assert circle(SOURCES) == []


@pytest.mark.parametrize(
    "back",
    [
        "from a import thing",
        "import a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import Thing",
        "def late():\n    from a import thing",
    ],
)
def test_a_circle_is_seen_wherever_the_import_stands(back: str) -> None:
    assert set(circle({"a": "from p import b", "p": "", "p.b": "import os, p.c", "p.c": back})) == {"a", "p.b", "p.c"}
    assert circle({"a": "from p import b", "p": "import a", "p.b": ""}) == []


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_run_one_way(path: Path) -> None:
    module = module_name(path)
    allowed = MAY_IMPORT[storey(module)]
    wrong = [
        f"{path}:{line} imports {name}"
        for line, name in imported(SOURCES[module])
        if storey(name) in {*HOUSE, "simulations.cli"} and storey(name) not in allowed
    ]
    assert not wrong or module in DOORS


@pytest.mark.parametrize("door", DOORS)
def test_a_door_only_passes_on(door: str) -> None:
    """It has a docstring, imports, and at most the call of an imported name where it is the program that runs."""
    docstring, *statements = ast.parse(SOURCES[door]).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value, ast.Constant)
    imports = [node for node in statements if isinstance(node, ast.ImportFrom)]
    others = [ast.unparse(node) for node in statements if not isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in imports for alias in node.names]
    assert {node.module for node in imports} == DOORS[door]
    assert others in ([], [f"if __name__ == '__main__':\n    {names[0]}()"])
    assert door.startswith("fedmtl.")
    assert not [module for module, targets in arrows(SOURCES).items() if door in targets]


def test_in_strategies_every_room_imports_from_lower_floors_alone() -> None:
    floor = {f"strategies.{room}": number for number, rooms in enumerate(FLOORS) for room in rooms}
    wrong = set()
    for module, targets in arrows(SOURCES).items():
        above = ".".join(module.split(".")[:2])
        for target in targets:
            below = ".".join(target.split(".")[:2])
            if above in floor and above != below and floor.get(below, -1) >= floor[above]:
                wrong.add((module, target))
    assert not wrong


def test_flowers_room_needs_nothing_but_the_core_and_only_recipes_need_it() -> None:
    needs = {module: targets for module, targets in arrows(SOURCES).items() if module.startswith("strategies.")}
    of_flower = set().union(*(targets for module, targets in needs.items() if module.startswith("strategies.flower")))
    assert all(target.startswith(("fedmtl.", "strategies.core", "strategies.flower")) for target in of_flower)
    users = {
        module.split(".")[1] for module, targets in needs.items() if any("strategies.flower" in t for t in targets)
    }
    assert users == {"flower", "recipes"}


def test_strategies_is_made_of_rooms() -> None:
    loose = {path.name for path in (ROOT / "strategies").iterdir() if path.is_file()}
    assert loose == {"__init__.py", "py.typed"}
    rooms = {path.parts[1] for path in MODULES if path.parts[0] == "strategies" and len(path.parts) > 2}
    assert rooms == set().union(*FLOORS)


def test_a_long_file_has_its_reason_at_the_top() -> None:
    folders = (*HOUSE, "tests", "benchmarks", "tools")
    texts = {path: path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")}
    long = {path.relative_to(ROOT) for path, text in texts.items() if len(text.splitlines()) > LONGEST}
    assert not {path for path in long if REASON not in (ast.get_docstring(ast.parse(texts[ROOT / path])) or "")}


def importers(package: str) -> set[str]:
    return {
        path.as_posix()
        for path in MODULES
        for _, name in imported(SOURCES[module_name(path)])
        if name == package or name.startswith(f"{package}.")
    }


def loaded_by(start: str) -> set[str]:
    """The modules of the house that are loaded when this one is imported."""
    found, waiting = set(), {start}
    while waiting:
        found.add(module := waiting.pop())
        first = [node for node in ast.parse(SOURCES[module]).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [name.split(".") for _, name in imported(ast.unparse(ast.Module(first, [])))]
        waiting |= {".".join(name[:n]) for name in names for n in range(1, len(name) + 1)} & SOURCES.keys() - found
    return found


@pytest.mark.slow
def test_who_draws_nothing_does_without_matplotlib() -> None:
    assert "fedmtl.plots.style" in loaded_by("fedmtl.report")  # so it is seen
    for module in ("simulations.runner", "simulations.cli.app", "simulations.flower.server_app", "clients.client_app"):
        assert not {name for name in loaded_by(module) if name.startswith(("fedmtl.plots", "fedmtl.report"))}


def test_only_server_client_and_flowers_engine_import_flwr() -> None:
    # The robust aggregator holds Flower's own rules, which it imports when it is made.
    single = {"clients/client_app.py", "strategies/aggregators/robust.py", "simulations/workers/grid.py"}
    allowed = ("strategies/flower/", "simulations/flower/")
    assert not {path for path in importers("flwr") if not path.startswith(allowed)} - single


def test_only_workers_import_ray() -> None:
    assert importers("ray") == {"simulations/workers/ray.py"}


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
    tried = set()

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            self.tried.add(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
"""Hides every installed package but torch, numpy and what these two need."""


HIDDEN = """
try:
    import ray
except ModuleNotFoundError as error:
    print(error)
"""

PACKAGES = "import fedmtl, fedmtl.data, fedmtl.models, fedmtl.balancing, clients, strategies, simulations"

DATA = """
from fedmtl.data.holdout import hold_out
from fedmtl.data.sources import SOURCES
from fedmtl.partitions import PARTITIONS
pool = SOURCES["synthetic"](0, 20)
for name in ("natural", "iid", "dirichlet", "quantity", "dual-dirichlet", "class", "feature-skew", "task-disjoint"):
    hold_out(PARTITIONS[name](pool, 20, 0), 0.2, 0)
import fedmtl.data.build
"""

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

DEVICES = """
import sys, numpy, torch
tried = sys.meta_path[0].tried
tried.clear()
import simulations.devices
assert not tried, tried
"""

QUESTIONS = {
    "hidden": HIDDEN,
    "devices": DEVICES,
    "packages": PACKAGES,
    "data": DATA,
    "simulation": SIMULATION,
}
"""What is asked of one interpreter, which takes longer to start than to answer."""


@pytest.fixture(scope="module")
def answers() -> Mapping[str, str]:
    """What an interpreter that has nothing but torch and numpy printed to each question, an error's trace included."""
    asked = f"""
import traceback
for name, code in {QUESTIONS!r}.items():
    print("asked", name)
    try:
        exec(code, {{}})
        print("fine", flush=True)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
"""
    result = subprocess.run(
        [sys.executable, "-c", BARE + asked], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    parts = [part.partition("\n") for part in result.stdout.split("asked ")[1:]]
    return {name: text for name, _, text in parts}


@pytest.mark.slow
def test_hiding_packages_hides_them(answers: Mapping[str, str]) -> None:
    assert answers["hidden"] == "No module named 'ray'\nfine\n"


def test_the_packages_import_with_torch_and_numpy_alone(answers: Mapping[str, str]) -> None:
    assert answers["packages"] == "fine\n"


def test_importing_devices_needs_torch_and_numpy_only(answers: Mapping[str, str]) -> None:
    assert answers["devices"] == "fine\n"


def test_plain_data_need_no_heavy_library(answers: Mapping[str, str]) -> None:
    assert answers["data"] == "fine\n"


def test_a_simulation_runs_with_torch_and_numpy_alone(answers: Mapping[str, str]) -> None:
    assert answers["simulation"] == "fine\n"
