"""Flower's robust rules and its differential-privacy clipping: ``w[t+1] = w[t] + rule(Delta_1 ... Delta_K)``.

The rules themselves are Flower's, called on records in memory; nothing here computes one. Deltas have shape [P].

================  ==============================================================================  ===================
name              rule                                                                            paper
================  ==============================================================================  ===================
``krum``          the delta nearest to its K - f - 2 nearest others                               arXiv 1703.02757
``multikrum``     weighted mean of the `selected` nearest of them                                 arXiv 1703.02757
``trimmed-mean``  per entry, mean without the `trim` smallest and largest shares                  arXiv 1803.01498
``median``        per entry, median                                                               arXiv 1803.01498
``bulyan``        Krum selects K - 2f, then per entry the mean of the K - 4f nearest the median   arXiv 1802.07927
``dp-clip``       mean of deltas clipped to norm S, plus noise of deviation ``z S / K``           arXiv 1710.06963
``dp-adaptive``   the same, with an S that follows the quantile gamma of the deltas' norms        arXiv 1905.03871
================  ==============================================================================  ===================

The rules translate with the model, so that for fresh updates they give what they would give on the clients' models.
A head is combined from the updates of its owners, as in every aggregator here; but for ``dp-clip`` and ``dp-adaptive``,
whose bound is one on the whole delta.

``dp-adaptive``: ``S <- S exp(-eta (b - gamma))`` with the share b of the deltas no longer than S, and noise on it.
Flower 1.41 takes the share of those that were clipped for b, so that S runs away from the quantile; here it is the
paper's. Long because Flower's rules are handed what a server app would give them: replies, quiet, noise of our seed.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.protocol import GlobalModel, Update
from fedmtl.randomness import derive_seed
from strategies.aggregators.ownership import combine_by_owner
from strategies.core.kinds import Aggregator, Step, Weighting
from strategies.weightings import Uniform

if TYPE_CHECKING:
    from flwr.app import MetricRecord, RecordDict
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideAdaptiveClipping
    from flwr.serverapp.strategy import Strategy as FlowerStrategy

RuleName = Literal["krum", "multikrum", "trimmed-mean", "median", "bulyan", "dp-clip", "dp-adaptive"]
Malicious = Annotated[int, Param("updates of a step that Krum and Bulyan must bear", ge=0, source="paper")]
Selected = Annotated[int, Param("updates that multikrum averages", ge=1, source="paper")]
Trim = Annotated[float, Param("share that trimmed-mean drops at either end", ge=0, lt=0.5, source="paper")]
ClippingNorm = Annotated[float, Param("largest norm of an update under dp-clip, at first under dp-adaptive", gt=0)]
NoiseMultiplier = Annotated[float, Param("deviation of an entry's noise under dp-*, times K over the norm", ge=0)]
Quantile = Annotated[float, Param("dp-adaptive: share of updates no longer than its norm", ge=0, le=1, source="paper")]
ClippingRate = Annotated[float, Param("dp-adaptive: rate at which its norm follows the quantile", gt=0, source="paper")]

_PRIVATE = ("dp-clip", "dp-adaptive")
_log = logging.getLogger(__name__)
_DELTA, _PLACE, _WEIGHT = "delta", "place", "weight"
_LEAST_WEIGHT = 1e-300  # a rule may pick updates of which none has any weight, and then divides by their sum


class Robust(Aggregator):
    """One of Flower's robust rules, or its clipping for differential privacy.

    Parameters
    ----------
    weighting
        Weights of the updates that ``multikrum`` averages. The other rules count all the same.
    rule
        The rule's name.
    malicious
        f, how many updates of a step may be malicious.
    selected
        How many updates ``multikrum`` averages.
    trim
        Share of the updates that ``trimmed-mean`` leaves out at either end.
    clipping_norm, noise_multiplier
        S (of ``dp-adaptive`` at first) and z. The noise follows from the run's seed: whoever knows that can take it
        away again.
    quantile, clipping_rate
        gamma and eta of ``dp-adaptive``.

    Raises
    ------
    ConfigError
        If ``dp-clip`` or ``dp-adaptive`` is asked for with weights that are not uniform.

    Notes
    -----
    A step with fewer updates than a rule needs (``2f + 3`` for Krum, and f beyond the selected; ``4f + 3`` for Bulyan;
    else 3) is logged as a warning; Bulyan then leaves the model as it is.

    Examples
    --------
    One of four updates is a lie, which the median is not moved by:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import GradientAggregator, Robust
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Uniform
    >>> deltas = [[1.0, 2.0], [1.5, 2.0], [1.0, 2.5], [-1000.0, 1000.0]]
    >>> step = Step.of(toy_model([0.0, 0.0]), [toy_update(client, delta) for client, delta in enumerate(deltas)])
    >>> for aggregator in (GradientAggregator(Uniform()), Robust(Uniform(), rule="median")):
    ...     aggregator.aggregate(step)[0]
    tensor([-249.1250,  251.6250])
    tensor([1.0000, 2.2500])
    """

    def __init__(
        self,
        weighting: Weighting,
        *,
        rule: Annotated[RuleName, Param("Flower's rule")] = "median",
        malicious: Malicious = 0,
        selected: Selected = 1,
        trim: Trim = 0.2,
        clipping_norm: ClippingNorm = 1.0,
        noise_multiplier: NoiseMultiplier = 0.0,
        quantile: Quantile = 0.5,
        clipping_rate: ClippingRate = 0.2,
    ) -> None:
        self.rule: RuleName = rule
        self.weighting = weighting
        if rule in _PRIVATE and not isinstance(weighting, Uniform):
            raise ConfigError(
                f"aggregator = {rule!r} needs weight_base = 'uniform': its noise is that of a mean in which all clients"
                " count the same"
            )
        if malicious > 0:
            self.needs = {"distinct-clients": "a malicious client that is twice in a step counts twice among f"}
        self.malicious = malicious
        self.selected = selected
        self.trim = trim
        self.clipping_norm = clipping_norm
        self.noise_multiplier = noise_multiplier
        self.quantile = quantile
        self.clipping_rate = clipping_rate
        self._seed = 0

    @property
    def least(self) -> int:
        """Updates of a step below which the rule protects nobody."""
        if self.rule in _PRIVATE:
            return 1
        least = {"krum": 2, "multikrum": 2, "bulyan": 4}.get(self.rule, 0) * self.malicious + 3
        return max(least, self.selected + self.malicious) if self.rule == "multikrum" else least

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Take the seed of the noise."""
        self._seed = seed

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Apply the rule; the weights are what each update had of the result where this has a sense."""
        used: dict[int, float] | None = None

        def combine(part: slice, updates: Sequence[Update], weights: Sequence[float]) -> Tensor:
            nonlocal used
            current = step.model.vector[part]
            if current.numel() == 0:
                return current
            change, shares = self._apply([update.delta[part] for update in updates], weights, step.model.version)
            if used is None and part.start == 0 and len(updates) == len(step.updates):  # the backbone, or all
                used = shares
            return current if change is None else current + change

        if self.rule in _PRIVATE:
            weights = self.weighting.weights(step.updates, step.model.version, step.ledger)
            vector = combine(slice(0, step.model.layout.size), step.updates, weights)
        else:
            vector, weights = combine_by_owner(step, self.weighting, combine)
        if used is None:  # a model without a backbone, whose heads have owners of their own
            return vector, weights
        return vector, tuple(used.get(place, 0.0) for place in range(len(step.updates)))

    def state_dict(self) -> dict[str, Any]:
        """The norm that ``dp-adaptive`` has come to."""
        return {"clipping_norm": self.clipping_norm} if self.rule == "dp-adaptive" else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.clipping_norm = float(state.get("clipping_norm", self.clipping_norm))

    def _apply(
        self, deltas: Sequence[Tensor], weights: Sequence[float], version: int
    ) -> tuple[Tensor | None, dict[int, float]]:
        """The change that the rule proposes (None: it declines), and the share that each delta had in it."""
        shares: dict[int, float] = {}

        def note(kept: list[RecordDict], key: str) -> MetricRecord:
            from flwr.app import MetricRecord

            metrics: list[Any] = [next(iter(content.metric_records.values())) for content in kept]
            total = sum(record[_WEIGHT] for record in metrics)
            shares.update({record[_PLACE]: record[_WEIGHT] / total for record in metrics})
            return MetricRecord()

        rule, replies = self._flower(note, deltas), _replies(deltas, weights, self.rule)
        with _quiet(), _cheap_collections(), _noise(derive_seed(self._seed, "privacy noise", version)):
            arrays, _ = rule.aggregate_train(version, replies)
        self.clipping_norm = getattr(rule, "clipping_norm", self.clipping_norm)
        if len(deltas) < self.least:
            outcome = "no step" if arrays is None else "nobody is protected"
            _log.warning("%s needs at least %d updates, has %d: %s", self.rule, self.least, len(deltas), outcome)
        if arrays is None:
            return None, {}
        return torch.from_numpy(arrays[_DELTA].numpy().astype(np.float32)), shares

    def _flower(self, note: object, deltas: Sequence[Tensor]) -> FlowerStrategy:
        """Flower's strategy with the same rule as this aggregator."""
        from flwr.app import Array, ArrayRecord
        from flwr.serverapp import strategy as flower

        common: dict[str, Any] = {"weighted_by_key": _WEIGHT, "train_metrics_aggr_fn": note}
        if self.rule == "krum":
            return flower.Krum(num_malicious_nodes=self.malicious, **common)
        if self.rule == "multikrum":
            return flower.MultiKrum(num_malicious_nodes=self.malicious, num_nodes_to_select=self.selected, **common)
        if self.rule == "trimmed-mean":
            return flower.FedTrimmedAvg(beta=self.trim, **common)
        if self.rule == "median":
            return flower.FedMedian(**common)
        if self.rule == "bulyan":
            return flower.Bulyan(num_malicious_nodes=self.malicious, **common)
        if self.rule == "dp-adaptive" and self.noise_multiplier >= len(deltas) / 10:
            raise ConfigError(
                f"noise_multiplier = {self.noise_multiplier} is too much for 'dp-adaptive' on {len(deltas)} updates: "
                "it must be less than a tenth of them"
            )
        bound = (flower.FedAvg(**common), self.noise_multiplier, len(deltas))
        clipping = (
            flower.DifferentialPrivacyServerSideFixedClipping(bound[0], bound[1], self.clipping_norm, bound[2])
            if self.rule == "dp-clip"
            else _adaptive()(*bound, self.clipping_norm, self.quantile, self.clipping_rate)
        )
        clipping.current_arrays = ArrayRecord({_DELTA: Array(np.zeros(len(deltas[0]), dtype=np.float32))})
        return clipping


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
