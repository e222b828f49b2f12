"""What each client is told."""

from strategies.policies.control_variates import ControlVariates
from strategies.policies.fedqs import FedQSPolicy
from strategies.policies.own_model import OwnModel
from strategies.policies.plain import Plain
from strategies.policies.proximal import Proximal

__all__ = ["ControlVariates", "FedQSPolicy", "OwnModel", "Plain", "Proximal"]
