"""The digest of an experiment: a fingerprint of all that determines its result.

A digest that was recorded once, in a checkpoint or a study, shall stay that of the same experiment while FedMTL grows.
So what enters is written down in ``digest_keys.json``, every key with the default that it had when this rule began:

- these keys always enter; one that has been removed enters with its old default, one that is unset now with what is in
  force;
- any other key enters where it is set to something else than its default;
- what only keeps, shows or deploys never enters: when a run stops and is saved, where it runs, what it is called.

What the same configuration means may change all the same: that is what :data:`fedmtl.checkpoint.RESULTS` counts.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from fedmtl.balancing.options import weight_bound
from fedmtl.checkpoint import digest
from fedmtl.components import options_of
from fedmtl.compression import COMPRESSORS
from fedmtl.config import ExperimentConfig
from fedmtl.data.sources import SOURCES
from fedmtl.models import MODELS
from fedmtl.partitions import PARTITIONS
from simulations.devices import DEVICES
from strategies.core.part import Part
from strategies.policies.fedqs import UNSET_RATES
from strategies.recipes.catalogue import STRATEGIES, builder
from strategies.recipes.custom import KINDS, SECTIONS, complete_part, inner_parts
from strategies.selectors import Selector
from strategies.task_weights import BALANCING

_COMPONENTS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "data.source": SOURCES,
    "data.partition": PARTITIONS,
    "model.name": MODELS,
    "devices.kind": DEVICES,
    "strategy.name": STRATEGIES,
    "balancing.name": BALANCING,
    "compression.name": COMPRESSORS,
}
"""The keys that name a component, and the tables that they name it from."""


def _statistics_in_force(tables: Mapping[str, Any]) -> str:
    """FedQS's rule for the statistics of batch norm: it was as with parameters, and a model without has none."""
    normed = "batch" in (tables["model"].get("norm"), tables["model"].get("out_norm"))
    return "weighted_mean" if normed else "as_parameters"


def _rate_in_force(name: str) -> Callable[[Mapping[str, Any]], float]:
    """FedQS's rates were absolute: they are those in force, at whatever learning rate."""
    return lambda tables: UNSET_RATES[name] * float(tables["training"]["learning_rate"])


def _weight_bound_in_force(tables: Mapping[str, Any]) -> float:
    """NTKMTL's bound of omega: it was 50 for every exponent, and is none above 0.5."""
    bound = weight_bound(None, tables["balancing"]["exponent"])
    return 0.0 if math.isinf(bound) else bound


def _heads_in_force(tables: Mapping[str, Any]) -> str:
    """What DB-MTL's heads follow: it was their loss, and is its logarithm as in the authors' code."""
    return "log"


def _own_bound_in_force(tables: Mapping[str, Any]) -> float:
    """FedNTK-trace's own bounds of the shared gradient and of heads: they give way to a bound of the same parts."""
    return 0.0 if tables["training"]["clip_by"] == "part" else 1.0


InForce = Mapping[str, Callable[[Mapping[str, Any]], Any]]

_RATES: InForce = {name: _rate_in_force(name) for name in UNSET_RATES}
_IN_FORCE: Mapping[tuple[str, str], InForce] = {
    ("strategy", "fedqs"): {"bn_buffers": _statistics_in_force, **_RATES},
    ("ClientPolicy", "fedqs"): _RATES,
    ("balancing", "ntkmtl"): {"w_max": _weight_bound_in_force},
    ("balancing", "ntkmtl-sr"): {"w_max": _weight_bound_in_force},
    ("balancing", "db-mtl"): {"head_weight": _heads_in_force},
    ("balancing", "fedntk-trace"): {"clip": _own_bound_in_force, "head_clip": _own_bound_in_force},
}
"""Keys that had a default and are unset now, and what is in force where they are: by section or kind of part, and the
name of the component."""

_NEVER = ("name", "engine", "stop")
"""What never enters: keys at the top, and sections."""

_ONLY_RECORDED = ("records",)
"""Sections of which nothing enters but what always did: every newer key of theirs only keeps or shows."""


def experiment_digest(tables: Mapping[str, Any]) -> str:
    """The digest of a complete configuration.

    Parameters
    ----------
    tables
        The configuration with every default written out (:attr:`simulations.experiment.Experiment.tables`).

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    return digest(entering(tables))


def entering(tables: Mapping[str, Any]) -> dict[str, Any]:
    """What of a complete configuration its digest is taken of."""
    entered: dict[str, Any] = {}
    for section, value in tables.items():
        if section in _NEVER:
            continue
        kept = _section(section, value, tables) if isinstance(value, Mapping) else value
        if kept != {}:
            entered[section] = kept
    return entered


def _section(section: str, values: Mapping[str, Any], tables: Mapping[str, Any]) -> dict[str, Any]:
    recorded, defaults = _known_keys(section, values)
    kept = {key: value for key, value in recorded.items() if value is not None and key not in values}
    kept |= _in_force(section, values, tables)
    kept |= {
        key: value
        for key, value in values.items()
        if key in recorded or (section not in _ONLY_RECORDED and not _same(value, defaults.get(key)))
    }
    if values.get("name") == "custom":
        kept |= {key: _tree(kind, kept[key], tables) for key, kind in SECTIONS.items() if key in kept}
    return kept


def _in_force(owner: str, values: Mapping[str, Any], tables: Mapping[str, Any]) -> dict[str, Any]:
    """What is in force for a component's keys that are unset."""
    settled = _IN_FORCE.get((owner, values.get("name", "")), {})
    return {key: in_force(tables) for key, in_force in settled.items() if values.get(key) is None}


def _known_keys(section: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys of a section that always enter, with their recorded defaults, and all keys with those of today."""
    recorded = dict(_recorded()["sections"].get(section, {}))
    defaults = dict(ExperimentConfig().model_dump().get(section, {}))
    for key, table in _COMPONENTS.items():
        home, name = key.split(".")
        if home == section:
            recorded |= _recorded()["components"][key].get(values[name], {})
            build = builder(values[name]) if table is STRATEGIES else table[values[name]]
            defaults |= {option.name: option.default for option in options_of(build)}
    return recorded, defaults


def _tree(kind: type[Part], tree: Mapping[str, Any] | str, tables: Mapping[str, Any]) -> Any:
    """What enters of a part of a free composition, and of the parts inside it.

    Of a selector whose options are the usual ones it is the name alone: once it had no options here.
    """
    if isinstance(tree, str):
        return tree
    name = tree["name"]
    recorded = _recorded()["parts"].get(kind.__name__, {}).get(name, {})
    usual = complete_part(kind, name)
    inner = inner_parts(KINDS[kind][0][name])
    kept = {key: value for key, value in recorded.items() if key not in tree}
    for key, value in tree.items():
        if key == "name" or key in recorded or not _same(value, usual[key]):
            kept[key] = _tree(inner[key], value, tables) if key in inner else value
    kept |= _in_force(kind.__name__, tree, tables)
    return name if kind is Selector and kept.keys() == {"name"} else kept


def _same(one: Any, other: Any) -> bool:
    """Whether two values are one in a configuration file, where a tuple is a list."""
    if other is inspect.Parameter.empty:
        return False
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@cache
def _recorded() -> dict[str, Any]:
    text = (files("simulations") / "digest_keys.json").read_text(encoding="utf-8")
    recorded: dict[str, Any] = json.loads(text)
    return recorded
