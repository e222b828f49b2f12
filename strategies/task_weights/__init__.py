"""How tasks are weighted against each other."""

from strategies.core.kinds import Equal
from strategies.task_weights.fedntk_trace import FedNTKTrace
from strategies.task_weights.local import NTKMTL, NTKMTLSR, LocalBalancing
from strategies.task_weights.per_task_delta import PerTaskDeltas
from strategies.task_weights.table import BALANCING, TASK_WEIGHTS, build_task_weights

__all__ = [
    "BALANCING",
    "NTKMTL",
    "NTKMTLSR",
    "TASK_WEIGHTS",
    "Equal",
    "FedNTKTrace",
    "LocalBalancing",
    "PerTaskDeltas",
    "build_task_weights",
]
