"""Policies whose clients train in a way of their own, with their options, for free compositions."""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.parts import ClientPolicy
from strategies.policies.convolution_decay import ConvolutionDecay
from strategies.policies.pacing import Pacing
from strategies.policies.simplex_classifier import SimplexClassifier
from strategies.policies.technique import LocalTechnique

Rho = Annotated[float, Param("radius of the ball around an example, units of a feature", ge=0)]
AttackSteps = Annotated[int, Param("steps of the ascent", ge=1)]
StepSize = Annotated[float, Param("a step of the ascent, share of rho", gt=0)]
BallNorm = Annotated[Literal["inf", "two"], Param("of the ball: maximum or Euclidean norm")]
Share = Annotated[float, Param("share of the examples at the start", gt=0, le=1)]
Opened = Annotated[int, Param("server version from which on everything is open", ge=1)]
ExampleOrder = Annotated[
    Literal["easy_first", "hard_first", "random"], Param("which examples come first", source="paper")
]
Temperature = Annotated[float, Param("T, divides the logits", gt=0, source="authors' code")]


def sharpness_aware(
    *,
    rho: Annotated[float, Param("norm of the climb; 0 for one gradient a step", ge=0)] = 0.05,
    mix: Annotated[float, Param("share of the perturbed gradient", ge=0, le=1)] = 1.0,
) -> ClientPolicy:
    """Clients take their gradients where the loss is higher (SAM, as in DFedSAM)."""
    return LocalTechnique("sharpness", {"rho": rho, "mix": mix, "dual": False})


def dual_corrected(
    *,
    lam: Annotated[float, Param("lambda, factor of drift and dual", ge=0, source="authors' code")] = 0.1,
    rho: Annotated[float, Param("norm of the climb; 0 for one gradient a step", ge=0, source="authors' code")] = 0.1,
    mix: Annotated[float, Param("share of the perturbed gradient", ge=0, le=1, source="authors' code")] = 1.0,
) -> ClientPolicy:
    """Clients correct their drift by a dual variable, and descend at perturbed points (FedSpeed)."""
    return LocalTechnique(
        "sharpness",
        {"rho": rho, "mix": mix, "dual": True},
        proximal=lam,
        provides=["duals"],
        needs={
            "duals-mean": "what clients correct by must go into the model; take strategy.aggregator = 'dual-averaged'"
        },
    )


def tasks_apart() -> ClientPolicy:
    """Clients train their tasks apart, and send a change of the backbone for each (FSMGDA)."""
    return LocalTechnique("tasks-apart", {}, provides=["task-changes"])


def adversarial(
    *, rho: Rho = 0.1, attack_steps: AttackSteps = 7, step_size: StepSize = 0.25, norm: BallNorm = "inf"
) -> ClientPolicy:
    """Clients train on adversarial examples (FAL)."""
    attack = {"rho": rho, "attack_steps": attack_steps, "step_size": step_size, "norm": norm}
    return LocalTechnique("adversarial", attack, real_features="tokens have no neighbourhood")


def examples_in_order(
    *, start: Share = 0.3, versions: Opened = 200, order: ExampleOrder = "easy_first"
) -> ClientPolicy:
    """Clients train on easy examples first, and on all of them later (curricula)."""
    return Pacing(order, start, versions)


def convolution_decay(*, decay: Annotated[float, Param("factor of the decay", ge=0)] = 0.1) -> ClientPolicy:
    """Convolutions' weights decay (FedAT as FedQS's authors have it)."""
    return ConvolutionDecay(decay)


def simplex_classifier(*, temperature: Temperature = 0.2) -> ClientPolicy:
    """Nobody trains the classifiers, and logits follow a client's own classes (FedGELA)."""
    return SimplexClassifier(temperature)
