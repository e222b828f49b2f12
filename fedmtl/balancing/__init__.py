"""Task balancing: from the losses of one step to gradients."""

from fedmtl.balancing.base import Balancer, StepGradients
from fedmtl.balancing.given_gradients import balance_gradients
from fedmtl.balancing.network import TaskNetwork
from fedmtl.balancing.table import BALANCERS, build_balancer, check_balancing

__all__ = [
    "BALANCERS",
    "Balancer",
    "StepGradients",
    "TaskNetwork",
    "balance_gradients",
    "build_balancer",
    "check_balancing",
]
