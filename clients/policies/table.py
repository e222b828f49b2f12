"""The client's halves by the name that an order carries, which is the policy's name in a configuration."""

from __future__ import annotations

from clients.policies.adversarial import AdversarialHalf
from clients.policies.base import ClientHalf
from clients.policies.compressed_jacobian import CompressedJacobianHalf
from clients.policies.control_variates import ControlVariatesHalf
from clients.policies.convolution_decay import ConvolutionDecayHalf
from clients.policies.curriculum import CurriculumHalf
from clients.policies.dual_corrected import DualCorrectedHalf
from clients.policies.fedqs import FedQSHalf
from clients.policies.loss_reports import LossReportsHalf
from clients.policies.merging import MergingHalf
from clients.policies.own_model import OwnModelHalf
from clients.policies.plain import PlainHalf
from clients.policies.sharpness_aware import SharpnessAwareHalf
from clients.policies.simplex_classifier import SimplexClassifierHalf
from clients.policies.tasks_apart import TasksApartHalf
from fedmtl.errors import UserError

CLIENT_HALVES: dict[str, ClientHalf] = {
    "plain": PlainHalf(),
    "fedqs": FedQSHalf(),
    "loss-reports": LossReportsHalf(),
    "control-variates": ControlVariatesHalf(),
    "own-model": OwnModelHalf(),
    "merging": MergingHalf(),
    "sharpness-aware": SharpnessAwareHalf(),
    "dual-corrected": DualCorrectedHalf(),
    "tasks-apart": TasksApartHalf(),
    "adversarial": AdversarialHalf(),
    "curriculum": CurriculumHalf(),
    "simplex-classifier": SimplexClassifierHalf(),
    "convolution-decay": ConvolutionDecayHalf(),
    "compressed-jacobian": CompressedJacobianHalf(),
}
"""A policy that is the server's alone, such as ``"proximal"``, sends ``"plain"``: clients do as the settings say."""


def client_half(name: str) -> ClientHalf:
    """The client's half of the policy of that name.

    Raises
    ------
    UserError
        If this client does not know the policy: client and server run different versions of FedMTL.
    """
    if name not in CLIENT_HALVES:
        raise UserError(
            f"the server asks for the policy {name!r}, this client knows {', '.join(CLIENT_HALVES)}: update the client"
        )
    return CLIENT_HALVES[name]
