"""Flower's robust rules and its differential-privacy clipping, in the place of a mean of updates.

The rules themselves are Flower's, called on records in memory; nothing here computes one. They see one delta of shape
[P] for each of the K clients of a step (:mod:`strategies.aggregators.by_rule`), of whom f may lie.

================  ==============================================================================  ===================
name              rule                                                                            paper
================  ==============================================================================  ===================
``krum``          the delta nearest to its K - f - 2 nearest others                               arXiv 1703.02757
``multikrum``     weighted mean of the `selected` nearest of them                                 arXiv 1703.02757
``trimmed-mean``  per entry, mean without the smallest and largest: share `trim`, f at least      arXiv 1803.01498
``median``        per entry, median                                                               arXiv 1803.01498
``bulyan``        Krum selects K - 2f, then per entry the mean of the K - 4f nearest the median   arXiv 1802.07927
``dp-clip``       mean of deltas clipped to norm S, plus noise of deviation ``z S / K``           arXiv 1710.06963
``dp-adaptive``   the same, with an S that follows the quantile gamma of the deltas' norms        arXiv 1905.03871
================  ==============================================================================  ===================

A step of fewer clients than a rule needs to bear f liars (``2f + 3`` for Krum, and f beyond the selected; ``4f + 3``
for Bulyan; else ``2f + 1``, and 3 at least; for ``dp-adaptive`` more than ten times the noise multiplier) leaves its
part of the model as it is, with a warning: there is no way to tell who lies. With f = 0 nobody is taken to lie, and the
rule is applied to what there is, with a warning below 3; but for Bulyan, which then has no result.

Batch-norm statistics are values: a rule that works entry by entry chooses among those of the clients, under the others
they are the mean of the clients that the rule has chosen. The two that protect privacy neither clip them nor add noise
to them, so that their guarantee leaves statistics out, which is logged.

A head is combined from the updates of its owners, as in every aggregator here; but for ``dp-clip`` and ``dp-adaptive``,
whose bound is one on the whole delta and which count all clients the same.

``dp-adaptive``: ``S <- S exp(-eta (b - gamma))`` with the share b of the deltas no longer than S, and noise on it.
Flower 1.41 takes the share of those that were clipped for b, so that S runs away from the quantile; here it is the
paper's. Long because Flower's rules are handed what a server app would give them: replies, quiet, noise of our seed.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from fedmtl.components import OptionsOf, Param, options_of
from fedmtl.errors import ConfigError
from fedmtl.protocol import GlobalModel
from fedmtl.randomness import derive_seed
from strategies.aggregators.gradient import GradientAggregator
from strategies.core.kinds import Rule, Weighting

if TYPE_CHECKING:
    from flwr.app import MetricRecord, RecordDict
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideAdaptiveClipping
    from flwr.serverapp.strategy import Strategy as FlowerStrategy

RuleName = Literal["krum", "multikrum", "trimmed-mean", "median", "bulyan", "dp-clip", "dp-adaptive"]
Malicious = Annotated[
    int, Param("f, clients of a step that may lie: the robust rules must bear so many", ge=0, source="paper")
]
Selected = Annotated[int, Param("clients that multikrum averages", ge=1, source="paper")]
Trim = Annotated[float, Param("share that trimmed-mean drops at either end; f at least", ge=0, lt=0.5, source="paper")]
ClippingNorm = Annotated[float, Param("largest norm of an update under dp-clip, at first under dp-adaptive", gt=0)]
NoiseMultiplier = Annotated[float, Param("deviation of an entry's noise under dp-*, times K over the norm", ge=0)]
Quantile = Annotated[float, Param("dp-adaptive: share of updates no longer than its norm", ge=0, le=1, source="paper")]
ClippingRate = Annotated[float, Param("dp-adaptive: rate at which its norm follows the quantile", gt=0, source="paper")]

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "krum": ("malicious",),
    "multikrum": ("malicious", "selected"),
    "trimmed-mean": ("malicious", "trim"),
    "median": ("malicious",),
    "bulyan": ("malicious",),
    "dp-clip": ("clipping_norm", "noise_multiplier"),
    "dp-adaptive": ("clipping_norm", "noise_multiplier", "quantile", "clipping_rate"),
}
"""The options that each rule has."""

_PRIVATE = ("dp-clip", "dp-adaptive")
_BY_ENTRY = ("trimmed-mean", "median", "bulyan")
_log = logging.getLogger(__name__)
_DELTA, _PLACE, _WEIGHT = "delta", "place", "weight"
_LEAST_WEIGHT = 1e-300  # a rule may pick updates of which none has any weight, and then divides by their sum


class FlowerRule(Rule):
    """One of Flower's robust rules, or its clipping for differential privacy.

    Parameters
    ----------
    name
        The rule's name.
    malicious
        f, how many clients of a step may lie.
    selected
        How many clients ``multikrum`` averages, by their weights; all other rules count clients the same.
    trim
        Share of the clients that ``trimmed-mean`` leaves out at either end.
    clipping_norm, noise_multiplier
        S (of ``dp-adaptive`` at first) and z. The noise follows from the run's seed: whoever knows that can take it
        away again.
    quantile, clipping_rate
        gamma and eta of ``dp-adaptive``.

    Raises
    ------
    ConfigError
        If an option is set that the rule does not have.

    Examples
    --------
    One of four updates is a lie, which the median is not moved by:

    >>> import torch
    >>> from strategies.aggregators import FlowerRule
    >>> deltas = torch.tensor([[1.0, 2.0], [1.5, 2.0], [1.0, 2.5], [-1000.0, 1000.0]])
    >>> FlowerRule("median", malicious=1).combine(list(deltas), [0.25] * 4, version=0)
    (tensor([1.0000, 2.2500]), (0.25, 0.25, 0.25, 0.25))
    """

    def __init__(
        self,
        name: RuleName,
        *,
        malicious: Malicious = 0,
        selected: Selected = 1,
        trim: Trim = 0.2,
        clipping_norm: ClippingNorm = 1.0,
        noise_multiplier: NoiseMultiplier = 0.0,
        quantile: Quantile = 0.5,
        clipping_rate: ClippingRate = 0.2,
    ) -> None:
        self.name: RuleName = name
        self.whole = self.alike = name in _PRIVATE
        self.by_entry = name in _BY_ENTRY
        self.malicious = malicious
        self.selected = selected
        self.trim = trim
        self.clipping_norm = clipping_norm
        self.noise_multiplier = noise_multiplier
        self.quantile = quantile
        self.clipping_rate = clipping_rate
        refuse_idle(name, {option.name: getattr(self, option.name) for option in options_of(FlowerRule)})
        self.least = self._least()
        self._seed = 0
        self._warned: set[int] = set()

    def _least(self) -> int:
        f = self.malicious
        if self.name == "dp-adaptive":  # Flower's bound: noise on b, and as much on the mean, need z < K / 10
            return math.floor(10.0 * self.noise_multiplier) + 1
        if self.name == "multikrum":
            return max(2 * f + 3, self.selected + f)
        return {"krum": 2 * f + 3, "bulyan": 4 * f + 3, "dp-clip": 1}.get(self.name, max(2 * f + 1, 3))

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Take the seed of the noise."""
        self._seed = seed
        if self.name in _PRIVATE and self.noise_multiplier > 0 and model.layout.buffers.start < model.layout.size:
            _log.warning(
                "%s: statistics of batch norm are averaged without noise; for privacy train without batch norm",
                self.name,
            )

    def state_dict(self) -> dict[str, Any]:
        """The norm that ``dp-adaptive`` has come to."""
        return {"clipping_norm": self.clipping_norm} if self.name == "dp-adaptive" else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.clipping_norm = float(state["clipping_norm"])

    def combine(
        self, vectors: Sequence[Tensor], weights: Sequence[float], version: int
    ) -> tuple[Tensor | None, tuple[float, ...]]:
        """What Flower's rule makes of them; None if they are too few."""
        clients = len(vectors)
        if clients < self.least:
            declines = self.malicious > 0 or self.name in ("bulyan", *_PRIVATE)
            self._warn(clients, "no step" if declines else "nobody is protected")
            if declines:
                return None, (0.0,) * clients
        shares = [0.0] * clients

        def note(kept: list[RecordDict], key: str) -> MetricRecord:
            from flwr.app import MetricRecord

            metrics: list[Any] = [next(iter(content.metric_records.values())) for content in kept]
            total = sum(record[_WEIGHT] for record in metrics)
            for record in metrics:
                shares[record[_PLACE]] = record[_WEIGHT] / total
            return MetricRecord()

        counted = [1.0 / clients] * clients if self.alike else weights
        rule, replies = self._flower(note, vectors), _replies(vectors, counted, self.name)
        with _quiet(), _cheap_collections(), _noise(derive_seed(self._seed, "privacy noise", version)):
            arrays, _ = rule.aggregate_train(version, replies)
        self.clipping_norm = getattr(rule, "clipping_norm", self.clipping_norm)
        assert arrays is not None, "Flower's rules decline only if clients are too few"
        return torch.from_numpy(arrays[_DELTA].numpy().astype(np.float32)), tuple(shares)

    def _warn(self, clients: int, outcome: str) -> None:
        """Say it once for each number of clients."""
        if clients not in self._warned:
            self._warned.add(clients)
            _log.warning("%s needs at least %d clients, has %d: %s", self.name, self.least, clients, outcome)

    def _flower(self, note: object, deltas: Sequence[Tensor]) -> FlowerStrategy:
        """Flower's strategy with the same rule."""
        from flwr.app import Array, ArrayRecord
        from flwr.serverapp import strategy as flower

        common: dict[str, Any] = {"weighted_by_key": _WEIGHT, "train_metrics_aggr_fn": note}
        if self.name == "krum":
            return flower.Krum(num_malicious_nodes=self.malicious, **common)
        if self.name == "multikrum":
            return flower.MultiKrum(num_malicious_nodes=self.malicious, num_nodes_to_select=self.selected, **common)
        if self.name == "trimmed-mean":
            return flower.FedTrimmedAvg(beta=self._beta(len(deltas)), **common)
        if self.name == "median":
            return flower.FedMedian(**common)
        if self.name == "bulyan":
            return flower.Bulyan(num_malicious_nodes=self.malicious, **common)
        bound = (flower.FedAvg(**common), self.noise_multiplier, len(deltas))
        clipping = (
            flower.DifferentialPrivacyServerSideFixedClipping(bound[0], bound[1], self.clipping_norm, bound[2])
            if self.name == "dp-clip"
            else _adaptive()(*bound, self.clipping_norm, self.quantile, self.clipping_rate)
        )
        clipping.current_arrays = ArrayRecord({_DELTA: Array(np.zeros(len(deltas[0]), dtype=np.float32))})
        return clipping

    def _beta(self, clients: int) -> float:
        """The share to trim, of which Flower drops ``floor(share * clients)`` at either end: f at least."""
        if int(self.trim * clients) >= self.malicious:
            return self.trim
        return (self.malicious + 0.25) / clients  # a quarter more, which no rounding takes below f


def refuse_idle(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options of rules that are set and that the one of this name does not have.

    Raises
    ------
    ConfigError
        With the rules that have the option.
    """
    own = OPTIONS.get(name, ())
    for option in options_of(FlowerRule):
        if option.name not in own and options[option.name] != option.default:
            rules = ", ".join(rule for rule, names in OPTIONS.items() if option.name in names)
            raise ConfigError(
                f"{option.name} = {options[option.name]} is nothing to aggregator = {name!r}: leave it out, or take one"
                f" of {rules}"
            )


def robust(
    weighting: Weighting,
    *,
    rule: Annotated[RuleName, Param("Flower's rule")] = "median",
    **options: Annotated[Any, OptionsOf(FlowerRule)],
) -> GradientAggregator:
    """Flower's robust rules in place of the mean of updates, which are added to the current model."""
    aggregator = GradientAggregator(weighting)
    aggregator.aggregate_by(FlowerRule(rule, **options))
    return aggregator


@functools.cache
def _adaptive() -> type[DifferentialPrivacyServerSideAdaptiveClipping]:
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideAdaptiveClipping

    class TowardsTheQuantile(DifferentialPrivacyServerSideAdaptiveClipping):
        def _geometric_update(self, clipped_fraction: float) -> None:
            super()._geometric_update(1.0 - clipped_fraction)

    return TowardsTheQuantile


@dataclass(slots=True)
class _Reply:
    """What the rules look at of a message; a real one can be made only inside a Flower run."""

    content: RecordDict

    def has_error(self) -> bool:
        return False


def _replies(deltas: Sequence[Tensor], weights: Sequence[float], rule: RuleName) -> list[Any]:
    """The deltas as if nodes had just sent them."""
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

    replies = []
    for place, (delta, weight) in enumerate(zip(deltas, weights, strict=True)):
        array = delta.numpy()
        if rule in _PRIVATE and not array.any():
            # Flower divides by the norm. This one's square is the least that float32 still holds in full.
            array = array.copy()
            array[0] = 2.0**-62
        arrays = ArrayRecord({_DELTA: Array(array)})
        metrics = MetricRecord({_WEIGHT: max(weight, _LEAST_WEIGHT), _PLACE: place})
        replies.append(_Reply(RecordDict({"arrays": arrays, "metrics": metrics})))
    return replies


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Flower reports every call in several lines; keep its warnings only."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _cheap_collections() -> Iterator[None]:
    """Flower's Bulyan collects garbage after each record: let that look at no object that was there before.

    With torch loaded a collection takes a tenth of a second.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _noise(seed: int) -> Iterator[None]:
    """Flower draws noise from NumPy's global generator: let it be ours for so long."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
