"""Random configurations of all that the tables offer: each ends well, or is refused with a clear message."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow.compute as pc
import torch

from fedmtl.checkpoint import load_model
from fedmtl.components import Option, options_of
from fedmtl.compression import COMPRESSORS
from fedmtl.config import to_toml
from fedmtl.models import MODELS
from fedmtl.partitions import PARTITIONS
from fedmtl.records import read_table
from simulations import Experiment, run
from simulations.devices import DEVICES
from strategies.recipes.catalogue import STRATEGIES
from strategies.recipes.custom import KINDS, SECTIONS, inner_parts
from strategies.selectors import Selector
from strategies.task_weights import BALANCING
from tools.soak.pieces import Fault, Piece

PART = "configurations"

_SMALL: Mapping[str, Any] = {
    "mlp": {"hidden": [12]},
    "lenet": {"channels": [2, 3], "hidden": [12]},
    "resnet18": {"width": 4, "groups": 2},
}
"""Models that take the examples of some source below, with options that keep them small."""

_NO_CLASSES = ("iid", "quantity", "feature-skew")
"""Partitions that need no classes."""

_WEIGH_TASKS = ("fsmgda", "fedcmoo")
"""Strategies that weigh tasks by themselves."""

_SOURCES = ("digits", "digits", "digits", "synthetic", "synthetic-tasks", "two-digits")
_OF_A_FILE = "trace"
"""Devices that are read from a file, which a random configuration has none of."""

_PICTURES = ("lenet", "resnet18")
_LOSS_GREW = 100.0
"""A loss of so many times its value at version 0 is divergence, and a run has to say so."""


def configurations(count: int, first: int = 0) -> list[Piece]:
    """So many random configurations; number n is that of the seed n."""
    pieces = []
    for number in range(first, first + count):
        tables = random_tables(number)
        pieces.append(Piece(PART, number, to_toml(tables), lambda folder, tables=tables: attempt(tables, folder)))
    return pieces


def attempt(tables: Mapping[str, Any], folder: Path) -> tuple[str, str, dict[str, Any]]:
    """Run a configuration; its outcome, where it is as it should be.

    Raises
    ------
    Fault
        If the run left what no run should leave.
    """
    result = run(Experiment.load(tables=tables), folder / "run", pictures=False)
    check_run(folder / "run", result.summary)
    return "success", result.ended, {"diverged": result.summary["diverged"] is not None}


def check_run(directory: Path, summary: Mapping[str, Any]) -> None:
    """See whether a finished run is what every run should be.

    Raises
    ------
    Fault
        If the model is not finite, variances are negative, a divergence is not said, or an upload was not settled once.
    """
    updates = read_table(directory, "updates")
    settled = pc.and_(pc.is_valid(updates["applied_version"]), pc.is_valid(updates["rejected"]))
    if pc.any(settled).as_py():
        raise Fault("unsettled", "an upload was applied and rejected")
    jobs = list(zip(updates["client"].to_pylist(), updates["job"].to_pylist(), strict=True))
    if len(set(jobs)) < len(jobs):
        raise Fault("unsettled", "an upload was settled twice")
    evaluations = read_table(directory, "evaluations").to_pylist()
    losses = [row for row in evaluations if row["group"] == "test" and row["metric"] == "loss"]
    first = {row["task"]: row["value"] for row in losses if row["version"] == 0}
    last = {row["task"]: row["value"] for row in losses}
    wild = [task for task, value in last.items() if not math.isfinite(value) or value > _LOSS_GREW * abs(first[task])]
    experiment = Experiment.load(directory / "experiment.toml")
    model = load_model(directory / "model.safetensors", experiment.layout)
    finite = bool(torch.isfinite(model.vector).all())
    # Three evaluations one after the other make a divergence: a shorter run has nothing to say it by.
    evaluated = len({row["version"] for row in losses if row["version"] > 0})
    said = summary["diverged"] is not None
    if (not finite or any(not math.isfinite(last[task]) for task in wild)) and not said:
        raise Fault("diverged", f"the model is {'finite' if finite else 'not finite'}, losses are {last}")
    if wild and evaluated >= 3 and not said and _three_times(losses, wild, first):
        raise Fault("diverged", f"losses grew from {first} to {last}")
    views = zip(experiment.layout.entries, model.layout.views(model.vector), strict=True)
    if finite and (negative := [e.name for e, view in views if e.name.endswith("running_var") and (view < 0).any()]):
        raise Fault("statistics", f"{negative[0]} has a negative variance")


def _three_times(losses: list[dict[str, Any]], wild: list[str], first: Mapping[str, float]) -> bool:
    for task in wild:
        ends = [row["value"] for row in losses if row["task"] == task and row["version"] > 0][-3:]
        if len(ends) == 3 and all(not math.isfinite(v) or v > _LOSS_GREW * abs(first[task]) for v in ends):
            return True
    return False


def random_tables(seed: int) -> dict[str, Any]:
    """The tables of a random configuration: half of it usual, the rest from anywhere in the documented ranges."""
    draw = Random(f"soak/{seed}")
    source = draw.choice(_SOURCES)
    pictures = source in ("digits", "two-digits")
    models = [name for name in _SMALL if name in MODELS and (pictures or name not in _PICTURES)]
    model = draw.choice(models) if draw.random() < 0.4 and models else "mlp"
    kinds = _NO_CLASSES if source == "synthetic-tasks" else [*PARTITIONS, *("dirichlet", "iid") * 3]
    partition = "natural" if source == "synthetic" else draw.choice(kinds)
    devices = draw.choice([*(name for name in DEVICES if name != _OF_A_FILE), *("uniform",) * 4])
    tables: dict[str, Any] = {
        "seed": seed,
        "data": {
            "source": source,
            "clients": draw.randint(2, 16),
            "partition": partition,
            "validation_fraction": draw.choice([0.0, 0.2, 0.5]),
            **draw.choice([{}, {}, {}, {"seed": 0}]),
            **_options(draw, PARTITIONS[partition], 0.3),
        },
        "tasks": {"ownership": draw.choice(["all", "all", "all", "random", "disjoint", "skewed"])},
        "model": {"name": model, **_SMALL.get(model, {}), **_norms(draw, MODELS[model])},
        "devices": {"kind": devices, **_options(draw, DEVICES[devices], 0.3)},
        "strategy": _strategy(draw),
        "balancing": _component(draw, BALANCING, 0.4),
        "compression": _component(draw, COMPRESSORS, 0.5) if draw.random() < 0.2 else {"name": "none"},
        "training": {
            **draw.choice([{"epochs": 1}, {"epochs": 1}, {"epochs": 2}, {"steps": 3}]),
            "batch_size": draw.choice([1, 7, 20, 50]) if draw.random() < 0.3 else 50,
            "learning_rate": round(10 ** draw.uniform(-3, 0.5), 4),
            "momentum": draw.choice([0.0, 0.0, 0.5, 0.9]),
            "clip": draw.choice([4.0, 4.0, 0.0, 0.1]),
            "proximal": draw.choice([0.0, 0.0, 0.1]),
            "weight_decay": draw.choice([0.0, 0.0, 0.01]),
            "tiny_clients": draw.choice([*("keep_last_batch",) * 5, "skip_client", "ref_drop_last"]),
        },
        "stop": {"versions": draw.randint(3, 5), "updates": 300},
        "records": {"evaluate_every": 1, "checkpoint_every": 2},
    }
    if tables["strategy"]["name"] in _WEIGH_TASKS and draw.random() < 0.9:
        tables["balancing"] = {"name": "equal"}
    if tables["data"]["partition"] == "task-disjoint":
        tables["tasks"]["ownership"] = "disjoint"
    if not tables["balancing"].keys() & {"clip", "head_clip"}:
        tables["training"]["clip_by"] = draw.choice(["model", "model", "part"])
    return tables


def _norms(draw: Random, build: Callable[..., Any]) -> dict[str, Any]:
    norms = [option for option in options_of(build) if option.name in ("norm", "out_norm")]
    return {option.name: _value(draw, option, option.annotation) for option in norms if draw.random() < 0.5}


def _strategy(draw: Random) -> dict[str, Any]:
    name = draw.choice([*STRATEGIES, *("custom",) * 4])
    if name == "custom":
        parts = {key: _tree(draw, kind) for key, kind in SECTIONS.items() if draw.random() < 0.8}
        return {"name": name, **parts}
    return {"name": name, **_options(draw, STRATEGIES[name], 0.25)}


def _tree(draw: Random, kind: Any) -> Any:
    table = KINDS[kind][0]
    name = draw.choice(list(table))
    if kind is Selector and not options_of(table[name]):
        return name
    inner = {key: _tree(draw, part) for key, part in inner_parts(table[name]).items() if part is not kind or key}
    inside = {key: tree for key, tree in inner.items() if key in ("base", "single", "group", "selection")}
    kept = {key: tree for key, tree in inside.items() if draw.random() < 0.4}
    return {"name": name, **_options(draw, table[name], 0.25), **kept}


def _component(draw: Random, table: Mapping[str, Callable[..., Any]], share: float) -> dict[str, Any]:
    name = draw.choice(list(table))
    return {"name": name, **_options(draw, table[name], share)}


def _options(draw: Random, build: Callable[..., Any], share: float) -> dict[str, Any]:
    chosen = {}
    for option in options_of(build):
        if draw.random() < share and (value := _value(draw, option, option.annotation)) is not None:
            chosen[option.name] = value
    return _fitting(chosen, {option.name for option in options_of(build)})


def _fitting(chosen: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The same options with those that they need beside them, for a refusal of these says little."""
    if "clock" in names and (chosen.get("buffer") == "one_per_tick" or chosen.get("tick_order") == "client"):
        chosen["clock"] = "tick"
    if "clients_per_round" in names and chosen.get("over_commit", 1.0) > 1.0:
        chosen.setdefault("clients_per_round", 2)
    for least, most in (("buffer_size", "max_buffer"), ("q_min", "q_max"), ("rate_min", "rate_max")):
        if least in chosen and most in chosen:
            chosen[least], chosen[most] = sorted((chosen[least], chosen[most]))
        elif most in chosen and least == "buffer_size":
            chosen[least] = max(1, chosen[most] - 1)
        elif least in chosen and least == "rate_min":
            chosen[most] = chosen[least]  # unset it would follow from the learning rate, and be below
    return chosen


def _value(draw: Random, option: Option, annotation: Any) -> Any:
    """A value of an option's type within its range; None to leave it alone."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _value(draw, option, arguments[0])
    if origin is Literal:
        return draw.choice(arguments)
    if origin in (Union, types.UnionType):
        return _value(draw, option, draw.choice([one for one in arguments if one is not type(None)]))
    param = option.param
    least = param.ge if param.ge is not None else param.gt
    most = param.le if param.le is not None else param.lt
    if annotation is bool:
        return draw.random() < 0.5
    if annotation is int:
        low = int(least) + (param.gt is not None) if least is not None else 0
        high = min(int(most) - (param.lt is not None), low + 12) if most is not None else low + 12
        return draw.randint(low, max(low, high))
    if annotation is float:
        return _number(draw, param.ge, least, most, option.default)
    return None


def _number(draw: Random, ge: float | None, least: float | None, most: float | None, default: Any) -> float:
    if ge is not None and draw.random() < 0.15:
        return float(ge)
    if least is not None and most is not None:
        return _round(least + (most - least) * draw.uniform(0.05, 0.95))
    scale = abs(default) if isinstance(default, float | int) and default else 1.0
    return _round((least or 0.0) + scale * 10 ** draw.uniform(-1, 1))


def _round(value: float) -> float:
    return float(f"{value:.4g}")
