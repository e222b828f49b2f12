"""How tasks are weighted, by its configuration name: by the server, or by each client with one of its balancers."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from fedmtl.balancing import BALANCERS
from fedmtl.components import choose
from strategies.parts import TaskWeights
from strategies.task_weights.fedntk_trace import FedNTKTrace
from strategies.task_weights.local import LocalBalancing

TASK_WEIGHTS: dict[str, Callable[..., TaskWeights]] = {
    "fedntk-trace": FedNTKTrace,
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
    if name in TASK_WEIGHTS:
        return TASK_WEIGHTS[name](**options)
    return LocalBalancing(name, **options)
