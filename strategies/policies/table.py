"""The client policies by their configuration names, for free compositions."""

from __future__ import annotations

from collections.abc import Callable

from strategies.core.kinds import ClientPolicy, Plain
from strategies.policies.adversarial import Adversarial
from strategies.policies.control_variates import ControlVariates
from strategies.policies.convolution_decay import ConvolutionDecay
from strategies.policies.curriculum import Curriculum
from strategies.policies.decayed_rate import DecayedRate
from strategies.policies.dual_corrected import DualCorrected
from strategies.policies.fedqs import FedQSPolicy
from strategies.policies.loss_reports import LossReports
from strategies.policies.merging import Merging
from strategies.policies.own_model import OwnModel
from strategies.policies.proximal import Proximal
from strategies.policies.scaled_rate import ScaledRate
from strategies.policies.sharpness_aware import SharpnessAware
from strategies.policies.simplex_classifier import SimplexClassifier
from strategies.policies.tasks_apart import TasksApart

POLICIES: dict[str, Callable[..., ClientPolicy]] = {
    "plain": Plain,
    "proximal": Proximal,
    "loss-reports": LossReports,
    "fedqs": FedQSPolicy,
    "control-variates": ControlVariates,
    "own-model": OwnModel,
    "decayed-rate": DecayedRate,
    "scaled-rate": ScaledRate,
    "merging": Merging,
    "sharpness-aware": SharpnessAware,
    "dual-corrected": DualCorrected,
    "tasks-apart": TasksApart,
    "adversarial": Adversarial,
    "curriculum": Curriculum,
    "simplex-classifier": SimplexClassifier,
    "convolution-decay": ConvolutionDecay,
}
