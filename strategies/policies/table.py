"""Client policies by their configuration names, for free compositions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from strategies.aggregators.gossip import Gossip
from strategies.core.kinds import Aggregator, ClientPolicy, Scheduler
from strategies.policies import ControlVariates, DecayedRate, LossReports, OwnModel, Plain, Proximal, ScaledRate
from strategies.policies.convolution_decay import ConvolutionDecay
from strategies.policies.curriculum import Pacing
from strategies.policies.fedqs_options import fedqs_policy
from strategies.policies.local import LocalTechnique
from strategies.policies.merging import Match, NeighbourModels, NormData
from strategies.policies.simplex_classifier import SimplexClassifier
from strategies.schedulers import Queued


def own_model() -> ClientPolicy:
    """A client goes on from its own model unless a newer global one exists (KAFL)."""
    return OwnModel()


def proximal(
    *,
    mu: Annotated[float, Param("factor of the proximal term", ge=0)] = 0.01,
    stragglers: Annotated[float, Param("probability that a client runs only some of its epochs", ge=0, le=1)] = 0.0,
) -> ClientPolicy:
    """Clients are held near the model that they were sent, and stragglers do partial work (FedProx)."""
    return Proximal(mu, stragglers)


def loss_reports(
    *,
    batches: Annotated[int, Param("first batches whose losses are reported; 0: an epoch's", ge=0)] = 0,
    mu: Annotated[float | None, Param("factor of a proximal term; the run's if not set", ge=0)] = None,
) -> ClientPolicy:
    """Clients report their first losses, for a selection by score (Oort, HeteRo-Select)."""
    return LossReports(batches, mu)


def control_variates(
    *, share: Annotated[Literal["clients", "weights"], Param("what an update's change counts")] = "clients"
) -> ClientPolicy:
    """Control variates take the clients' drift out of their steps (SCAFFOLD, FedAC)."""
    return ControlVariates(share)


def decayed_rate(
    *,
    factor: Annotated[float, Param("decay per period", gt=0, le=1)] = 0.995,
    period: Annotated[int, Param("local steps of a period", ge=1)] = 100,
) -> ClientPolicy:
    """A client's learning rate falls with the steps that it has done."""
    return DecayedRate(factor, period)


def scaled_rate(scheduler: Scheduler) -> ClientPolicy:
    """Clients that take more steps take smaller ones (FedQueue)."""
    if not isinstance(scheduler, Queued):
        raise ConfigError(
            f"ScaledRate with {type(scheduler).__name__}: it needs 'step-budgets', which none of them has; take "
            "strategy.scheduler.name = 'queued'"
        )
    return ScaledRate(scheduler.rate_factor)


def merging(
    aggregator: Aggregator,
    *,
    match: Annotated[Match, Param("what units are matched by before averaging")] = "activations",
    examples: Annotated[int, Param("examples that activations are taken from, at most", ge=2)] = 256,
    bn_data: Annotated[NormData, Param("whose examples statistics of batch norm are measured on")] = "private",
) -> ClientPolicy:
    """Clients merge their neighbours' models before they train (DIMAT)."""
    if not isinstance(aggregator, Gossip) or aggregator.steps > 0:
        raise ConfigError(
            f"NeighbourModels with {type(aggregator).__name__}: it needs 'neighbours', which none of them has; take "
            "strategy.aggregator.name = 'gossip' with steps = 0"
        )
    return NeighbourModels(aggregator, match, examples, bn_data)


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
    return LocalTechnique("sharpness-aware", {"rho": rho, "mix": mix})


def dual_corrected(
    *,
    lam: Annotated[float, Param("lambda, factor of drift and dual", ge=0, source="authors' code")] = 0.1,
    rho: Annotated[float, Param("norm of the climb; 0 for one gradient a step", ge=0, source="authors' code")] = 0.1,
    mix: Annotated[float, Param("share of the perturbed gradient", ge=0, le=1, source="authors' code")] = 1.0,
) -> ClientPolicy:
    """Clients correct their drift by a dual variable, and descend at perturbed points (FedSpeed)."""
    return LocalTechnique(
        "dual-corrected",
        {"rho": rho, "mix": mix},
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


POLICIES: Mapping[str, Callable[..., ClientPolicy]] = {
    "plain": Plain,
    "proximal": proximal,
    "loss-reports": loss_reports,
    "fedqs": fedqs_policy,
    "control-variates": control_variates,
    "own-model": own_model,
    "decayed-rate": decayed_rate,
    "scaled-rate": scaled_rate,
    "merging": merging,
    "sharpness-aware": sharpness_aware,
    "dual-corrected": dual_corrected,
    "tasks-apart": tasks_apart,
    "adversarial": adversarial,
    "curriculum": examples_in_order,
    "simplex-classifier": simplex_classifier,
    "convolution-decay": convolution_decay,
}
