"""How a client's steps may differ from plain descent."""

from clients.techniques.adversary import Adversary
from clients.techniques.base import Compute, Technique, Workbench
from clients.techniques.curriculum import Curriculum
from clients.techniques.perturbation import Perturbation

__all__ = ["Adversary", "Compute", "Curriculum", "Perturbation", "Technique", "Workbench"]
