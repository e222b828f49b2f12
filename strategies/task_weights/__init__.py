"""How tasks are weighted against each other."""

from strategies.task_weights.equal import Equal
from strategies.task_weights.local import NTKMTL, NTKMTLSR, LocalBalancing

__all__ = ["NTKMTL", "NTKMTLSR", "Equal", "LocalBalancing"]
