"""What each client is asked to do: the server's halves of the policies, one a file."""

from strategies.core.kinds import Plain
from strategies.policies.control_variates import ControlVariates
from strategies.policies.decayed_rate import DecayedRate
from strategies.policies.fedqs import FedQSPolicy
from strategies.policies.loss_reports import LossReports
from strategies.policies.own_model import OwnModel
from strategies.policies.proximal import Proximal
from strategies.policies.scaled_rate import ScaledRate

__all__ = [
    "ControlVariates",
    "DecayedRate",
    "FedQSPolicy",
    "LossReports",
    "OwnModel",
    "Plain",
    "Proximal",
    "ScaledRate",
]
