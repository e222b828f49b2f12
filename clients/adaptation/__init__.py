"""The client's halves of the policies, by the name that an order carries."""

from __future__ import annotations

from clients.adaptation.adversarial import AdversarialAdaptation
from clients.adaptation.base import Adaptation
from clients.adaptation.compressed_jacobian import CompressedJacobianAdaptation
from clients.adaptation.control_variates import ControlVariatesAdaptation
from clients.adaptation.convolution_decay import ConvolutionDecayAdaptation
from clients.adaptation.curriculum import CurriculumAdaptation
from clients.adaptation.fedqs import FedQSAdaptation
from clients.adaptation.frozen_classifier import FrozenClassifierAdaptation
from clients.adaptation.losses import LossesAdaptation
from clients.adaptation.merging import MergingAdaptation
from clients.adaptation.own_model import OwnModelAdaptation
from clients.adaptation.plain import PlainAdaptation
from clients.adaptation.sharpness import SharpnessAdaptation
from clients.adaptation.tasks_apart import TasksApartAdaptation
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
