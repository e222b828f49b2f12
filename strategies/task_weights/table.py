"""How tasks are weighted, by its configuration name: by the server, or by each client with one of its balancers."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from fedmtl.balancing import BALANCERS
from fedmtl.components import choose, options_of
from fedmtl.errors import ConfigError
from strategies.core.kinds import TaskWeights
from strategies.task_weights.fedcmoo import FedCMOOWeights
from strategies.task_weights.fedntk_trace import FedNTKTrace
from strategies.task_weights.local import LocalBalancing
from strategies.task_weights.per_task_delta import PerTaskDeltas

TASK_WEIGHTS: dict[str, Callable[..., TaskWeights]] = {
    "fedntk-trace": FedNTKTrace,
    "fedcmoo": FedCMOOWeights,
}
"""Those that need the server; their options are the keyword-only parameters."""

BALANCING: Mapping[str, Callable[..., Any]] = ChainMap(TASK_WEIGHTS, BALANCERS)
"""All that the section `balancing` of a configuration may name, for checking its options."""


def build_task_weights(name: str, options: Mapping[str, Any]) -> TaskWeights:
    """The task weights of that name.

    Raises
    ------
    ConfigError
        If the name is unknown, or the options do not fit together.
    """
    choose(BALANCING, name, "balancing.name")
    if options.get("extra") == "per_task_delta":
        return _per_task_deltas(options)
    if name in TASK_WEIGHTS:
        return TASK_WEIGHTS[name](**options)
    return LocalBalancing(name, **options)


def _per_task_deltas(options: Mapping[str, Any]) -> PerTaskDeltas:
    """FedNTK-trace with changes of each task in place of traces, so that most of its options have nothing to steer."""
    kept = [option.name for option in options_of(PerTaskDeltas)]
    for option in options_of(FedNTKTrace):
        given = options.get(option.name, option.default)
        if option.name not in (*kept, "extra") and given != option.default:
            raise ConfigError(
                f"balancing.{option.name} = {given!r} with balancing.extra = 'per_task_delta': there are no probes, "
                "no averages and no coverage then, and heads follow their own gradients; "
                f"leave balancing.{option.name} out"
            )
    return PerTaskDeltas(**{name: options[name] for name in kept if name in options})
