"""How a client's steps may differ from plain descent."""

from clients.policies.step_rule import Compute, Technique, Workbench
from clients.techniques.adversary import Adversary
from clients.techniques.compressed_jacobian import CompressedJacobian
from clients.techniques.curriculum import Curriculum
from clients.techniques.perturbation import Perturbation
from clients.techniques.tasks_apart import TasksApart

__all__ = [
    "Adversary",
    "CompressedJacobian",
    "Compute",
    "Curriculum",
    "Perturbation",
    "TasksApart",
    "Technique",
    "Workbench",
]
