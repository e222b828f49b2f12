"""Weightings by their configuration names, for free compositions."""

from __future__ import annotations

from collections.abc import Callable

from strategies.core.kinds import Weighting
from strategies.weightings.agreement import Agreement
from strategies.weightings.data_size import DataSize
from strategies.weightings.fedqs import FedQSWeights
from strategies.weightings.kafl import KAFLWeights
from strategies.weightings.normalised import Normalised
from strategies.weightings.share import ShareOfAll
from strategies.weightings.staleness import Discounted
from strategies.weightings.steps import LocalSteps
from strategies.weightings.uniform import Uniform

WEIGHTINGS: dict[str, Callable[..., Weighting]] = {
    "uniform": Uniform,
    "data-size": DataSize,
    "local-steps": LocalSteps,
    "share-of-all": ShareOfAll,
    "staleness": Discounted,
    "normalised": Normalised,
    "fedqs": FedQSWeights,
    "kafl": KAFLWeights,
    "agreement": Agreement,
}
