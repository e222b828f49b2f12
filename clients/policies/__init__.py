"""The client's halves of the policies, by the name that an order carries."""

from __future__ import annotations

from clients.policies.adversarial import AdversarialAdaptation
from clients.policies.base import Adaptation
from clients.policies.compressed_jacobian import CompressedJacobianAdaptation
from clients.policies.control_variates import ControlVariatesAdaptation
from clients.policies.convolution_decay import ConvolutionDecayAdaptation
from clients.policies.curriculum import CurriculumAdaptation
from clients.policies.fedqs import FedQSAdaptation
from clients.policies.loss_reports import LossesAdaptation
from clients.policies.merging import MergingAdaptation
from clients.policies.own_model import OwnModelAdaptation
from clients.policies.plain import PlainAdaptation
from clients.policies.sharpness_aware import SharpnessAdaptation
from clients.policies.simplex_classifier import FrozenClassifierAdaptation
from clients.policies.tasks_apart import TasksApartAdaptation
from fedmtl.errors import UserError

ADAPTATIONS: dict[str, Adaptation] = {
    "plain": PlainAdaptation(),
    "fedqs": FedQSAdaptation(),
    "control-variates": ControlVariatesAdaptation(),
    "losses": LossesAdaptation(),
    "own-model": OwnModelAdaptation(),
    "sharpness": SharpnessAdaptation(),
    "adversarial": AdversarialAdaptation(),
    "curriculum": CurriculumAdaptation(),
    "frozen-classifier": FrozenClassifierAdaptation(),
    "tasks-apart": TasksApartAdaptation(),
    "compressed-jacobian": CompressedJacobianAdaptation(),
    "merging": MergingAdaptation(),
    "convolution-decay": ConvolutionDecayAdaptation(),
}


def adaptation(name: str) -> Adaptation:
    """The client's half of the policy of that name.

    Raises
    ------
    UserError
        If this client does not know the policy: client and server run different versions of FedMTL.
    """
    if name not in ADAPTATIONS:
        raise UserError(
            f"the server asks for the policy {name!r}, this client knows {', '.join(ADAPTATIONS)}: update the client"
        )
    return ADAPTATIONS[name]
