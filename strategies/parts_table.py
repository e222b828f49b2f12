"""The parts by their configuration names, for free compositions (:mod:`strategies.custom`).

A builder's keyword-only parameters are the part's options; its other parameters are the parts inside it, and their
types say of which kind. A class can stand here as its own builder. Parts that only make sense inside one method (tiers,
caches, gossip) have no name here: take that method's recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.aggregators import (
    GradientAggregator,
    ModelAggregator,
    Optimized,
    Robust,
    SinglesApart,
    Statistics,
    WKAFLAggregator,
)
from strategies.aggregators.robust import RuleName
from strategies.fedqs_parts import fedqs_policy, fedqs_weights
from strategies.options import (
    BufferRule,
    BufferSize,
    Clock,
    Concurrency,
    FlushSeconds,
    MaxBuffer,
    StalenessFunction,
    Tick,
    staleness_function,
)
from strategies.parts import Aggregator, ClientPolicy, Part, Scheduler, Weighting
from strategies.policies import ControlVariates, DecayedRate, LossReports, OwnModel, Plain, Proximal
from strategies.round_options import ClientsPerRound, Late, OverCommit, StepBudget, Timeout
from strategies.schedulers import Asynchronous, Buffered, Compass, Synchronous
from strategies.selectors import HeteroSelect, OortSelector, Selector
from strategies.server_optimizers import SGD, Adam, AMSGrad, ServerOptimizer, Yogi
from strategies.technique_parts import adversarial, examples_in_order, sharpness_aware, simplex_classifier
from strategies.weightings import (
    Agreement,
    Capped,
    DataSize,
    Discounted,
    KAFLWeights,
    Normalised,
    ShareOfAll,
    Uniform,
)

Builder = Callable[..., Part]

Selection = Annotated[
    Literal["random", "oort", "heteroselect"], Param("who is next of those who are idle: by chance, or by a score")
]
ServerRate = Annotated[float, Param("eta_g, the server's step", gt=0)]
Beta = Annotated[float, Param("decay of a moment", ge=0, lt=1)]


def synchronous(
    *,
    clients_per_round: ClientsPerRound = None,
    over_commit: OverCommit = 1.0,
    timeout: Timeout = None,
    late: Late = "reject",
    step_budget: StepBudget = None,
    selection: Selection = "random",
) -> Scheduler:
    """Rounds: the server waits for those that it asked."""
    return Synchronous(
        clients_per_round,
        selector=selector_of(selection),
        over_commit=over_commit,
        timeout=timeout,
        late=late,
        step_budget=step_budget,
    )


def asynchronous(*, concurrency: Concurrency = None) -> Scheduler:
    """Every arrival is a server step."""
    return Asynchronous(concurrency)


def buffered(
    *,
    buffer_size: BufferSize = 10,
    concurrency: Concurrency = None,
    max_staleness: Annotated[int | None, Param("staler updates are rejected; none if not set", ge=0)] = None,
    buffer: BufferRule = "drain",
    clock: Clock = "event",
    tick: Tick = 1.0,
    max_buffer: MaxBuffer = None,
    flush_seconds: FlushSeconds = None,
    selection: Selection = "random",
) -> Scheduler:
    """K updates make a server step."""
    return Buffered(
        buffer_size,
        concurrency=concurrency,
        buffer=buffer,
        clock=clock,
        tick=tick,
        max_size=max_buffer,
        patience=flush_seconds,
        max_staleness=max_staleness,
        selector=selector_of(selection),
    )


def selector_of(name: Literal["random", "oort", "heteroselect"]) -> Selector | None:
    """A new selector with its recipe's defaults; None for chance. The policy `loss-reports` gives it better losses."""
    return None if name == "random" else OortSelector() if name == "oort" else HeteroSelect()


def gradient(weighting: Weighting, *, server_rate: ServerRate = 1.0) -> Aggregator:
    """Adds weighted updates to the current model."""
    return GradientAggregator(weighting, server_rate)


def model(weighting: Weighting) -> Aggregator:
    """Averages the clients' models; weights that sum to less than 1 leave the rest to the current model."""
    return ModelAggregator(Capped(weighting))


def optimised(
    base: Aggregator,
    *,
    optimizer: Annotated[Literal["sgd", "adam", "yogi", "amsgrad"], Param("the server's optimiser")] = "sgd",
    server_rate: ServerRate = 1.0,
    momentum: Annotated[float, Param("beta of sgd", ge=0, lt=1)] = 0.9,
    beta1: Beta = 0.9,
    beta2: Beta = 0.99,
    eps: Annotated[float, Param("added to the root", gt=0)] = 1e-3,
) -> Aggregator:
    """Another aggregator proposes a model, and a server optimiser takes the step towards it."""
    kinds: dict[str, Callable[..., ServerOptimizer]] = {"adam": Adam, "yogi": Yogi, "amsgrad": AMSGrad}
    if optimizer == "sgd":
        return Optimized(base, SGD(server_rate, momentum))
    return Optimized(base, kinds[optimizer](server_rate, beta1, beta2, eps))


def robust(
    weighting: Weighting,
    *,
    rule: Annotated[RuleName, Param("Flower's rule")] = "median",
    malicious: Annotated[int, Param("updates of a step that may be malicious", ge=0)] = 0,
    selected: Annotated[int, Param("updates that multikrum averages", ge=1)] = 1,
    trim: Annotated[float, Param("share that trimmed-mean leaves out at either end", ge=0, lt=0.5)] = 0.2,
    clipping_norm: Annotated[float, Param("L2 norm that dp-clip clips to", gt=0)] = 1.0,
    noise_multiplier: Annotated[float, Param("dp-clip's noise over the clipping norm", ge=0)] = 0.0,
) -> Aggregator:
    """Flower's robust rules, or its clipping for differential privacy."""
    return Robust(
        rule,
        weighting,
        malicious=malicious,
        selected=selected,
        trim=trim,
        clipping_norm=clipping_norm,
        noise_multiplier=noise_multiplier,
    )


def wkafl(
    *,
    server_rate: ServerRate = 1.0,
    rate_decay: Annotated[float, Param("decay of the step with the least staleness", ge=0)] = 0.01,
    momentum: Annotated[float, Param("share of the last direction in each update", ge=0, lt=1)] = 0.1,
    norm_bound: Annotated[float, Param("L2 norm to which updates are clipped", gt=0)] = 10.0,
    cosine_bound: Annotated[float, Param("least agreement of an update that counts", ge=-1, lt=1)] = 0.3,
    sharpness: Annotated[float, Param("factor of the cosine in the exponential", ge=0)] = 50.0,
    late_from: Annotated[int, Param("version at which the second stage begins", ge=0)] = 3500,
    late_bound: Annotated[float, Param("second stage: norms over the estimate's, at most", gt=0)] = 5.0,
) -> Aggregator:
    """Updates are picked and weighed by their agreement with a staleness-weighted estimate (WKAFL)."""
    return WKAFLAggregator(
        server_rate,
        rate_decay,
        momentum=momentum,
        norm_bound=norm_bound,
        cosine_bound=cosine_bound,
        sharpness=sharpness,
        late_from=late_from,
        late_bound=late_bound,
    )


def singles_apart(single: Aggregator, group: Aggregator) -> Aggregator:
    """A client's lone report goes to one aggregator, a group's step to another."""
    return SinglesApart(single, group)


def statistics(
    base: Aggregator,
    *,
    rule: Annotated[Literal["group_mean", "replace_single"], Param("what is set apart")] = "group_mean",
) -> Aggregator:
    """Batch-norm statistics by a rule of their own."""
    return Statistics(base, rule)


def uniform() -> Weighting:
    """Every update counts the same."""
    return Uniform()


def data_size() -> Weighting:
    """An update counts as much as its client has examples."""
    return DataSize()


def staleness(
    base: Weighting,
    *,
    function: StalenessFunction = "polynomial",
    a: Annotated[float, Param("exponent, or slope of the hinge", ge=0)] = 0.5,
    b: Annotated[float, Param("staleness up to which the hinge is 1", ge=0)] = 4.0,
    factor: Annotated[float, Param("weight of a fresh update, times its base weight", gt=0, le=1)] = 1.0,
    relative: Annotated[bool, Param("divide by the value at the mean staleness")] = False,
) -> Weighting:
    """Stale updates count less."""
    return Discounted(base, staleness_function(function, a, b), factor, relative=relative)


def share_of_all(
    base: Weighting, *, by: Annotated[Literal["clients", "examples"], Param("what the share is of")] = "clients"
) -> Weighting:
    """Weights against all clients (FedCompass's 1/m) and not against the updates at hand."""
    return ShareOfAll(base, by)


def normalised(
    base: Weighting, *, mu: Annotated[float, Param("factor of the clients' proximal term", ge=0)] = 0.0
) -> Weighting:
    """Clients that did more local work do not pull harder for it (FedNova)."""
    return Normalised(base, mu)


def kafl(base: Weighting) -> Weighting:
    """Rare clients and models near the global one count more (KAFL)."""
    return KAFLWeights(base)


def agreement(*, floor: Annotated[float, Param("least agreement of an update", gt=0, le=1)] = 0.1) -> Weighting:
    """Updates that agree with the server's movement count more (FedAC)."""
    return Agreement(floor)


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


SCHEDULERS: Mapping[str, Builder] = {
    "synchronous": synchronous,
    "asynchronous": asynchronous,
    "buffered": buffered,
    "compass": Compass,
}
AGGREGATORS: Mapping[str, Builder] = {
    "gradient": gradient,
    "model": model,
    "optimised": optimised,
    "singles-apart": singles_apart,
    "statistics": statistics,
    "robust": robust,
    "wkafl": wkafl,
}
WEIGHTINGS: Mapping[str, Builder] = {
    "uniform": uniform,
    "data-size": data_size,
    "share-of-all": share_of_all,
    "staleness": staleness,
    "normalised": normalised,
    "fedqs": fedqs_weights,
    "kafl": kafl,
    "agreement": agreement,
}
POLICIES: Mapping[str, Builder] = {
    "plain": Plain,
    "proximal": proximal,
    "loss-reports": loss_reports,
    "fedqs": fedqs_policy,
    "control-variates": control_variates,
    "own-model": own_model,
    "decayed-rate": decayed_rate,
    "sharpness-aware": sharpness_aware,
    "adversarial": adversarial,
    "curriculum": examples_in_order,
    "simplex-classifier": simplex_classifier,
}

KINDS: Mapping[type[Part], tuple[Mapping[str, Builder], str]] = {
    Scheduler: (SCHEDULERS, "buffered"),
    Aggregator: (AGGREGATORS, "gradient"),
    Weighting: (WEIGHTINGS, "uniform"),
    ClientPolicy: (POLICIES, "plain"),
}
"""For each kind of part the table, and the name that is taken where none is given."""
