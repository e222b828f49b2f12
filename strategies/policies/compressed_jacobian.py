"""Clients that report the gradients of their tasks, compressed.

Down: the constant ``rank``, r. Up: a basis of r vectors and each task's coefficients. The client's half is
:mod:`clients.policies.compressed_jacobian`; FedCMOO's task weights put this policy into a strategy.
"""

from __future__ import annotations

from typing import Annotated

from fedmtl.components import Param
from fedmtl.update_contract import Range, Reportable
from strategies.policies.local import LocalPolicy

Rank = Annotated[int, Param("r, vectors that stand for a client's Jacobian", ge=1, source="paper")]


_COEFFICIENT: Range = (-1.001, 1.001)  # entries of unit vectors, in single precision


class CompressedJacobian(LocalPolicy):
    """Clients report the gradients of their tasks in r vectors (FedCMOO).

    Examples
    --------
    An update must come with these vectors:

    >>> from strategies.policies.compressed_jacobian import CompressedJacobian
    >>> CompressedJacobian(rank=2).reported
    ('basis 0', 'basis 1')
    """

    name = "compressed-jacobian"

    def __init__(self, *, rank: Rank = 1) -> None:
        self.rank = rank
        self.reported = tuple(f"basis {j}" for j in range(rank))
        self.constants = {"rank": rank}

    def reports(self, tasks: tuple[int, ...]) -> Reportable:
        """The basis, which tasks are weighed by and which does not enter the model, and each task's coefficients."""
        coefficients = {f"coefficient {task} {j}": _COEFFICIENT for task in tasks for j in range(self.rank)}
        return Reportable(dict.fromkeys(self.reported, False), coefficients)
