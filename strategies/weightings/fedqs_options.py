"""FedQS's weights with their options."""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.core.kinds import Weighting
from strategies.weightings.fedqs import FedQSWeights

_CODE = "authors' code"

FrequencyCap = Annotated[float, Param("upper bound of F", gt=0, le=1000, source=_CODE)]
SimilarityCap = Annotated[float, Param("upper bound of G in a weight", gt=0, source=_CODE)]
Phi = Annotated[float | None, Param("phi of the speed factor; K/N if not set (the code: 0.1)", gt=0, le=100)]
Feedback = Annotated[bool, Param("weights follow the feedback bit", source="paper")]
FeedbackSpeed = Annotated[
    Literal["frequency", "ratio"], Param("what lowers the speed factor's exponent: f_i or F", source=_CODE)
]
FeedbackSimilarity = Annotated[Literal["1+G^2", "(1+G)^2"], Param("similarity factor of a weight", source=_CODE)]


def fedqs_weights(
    base: Weighting,
    *,
    phi: Phi = None,
    feedback: Feedback = True,
    feedback_speed: FeedbackSpeed = "frequency",
    feedback_similarity: FeedbackSimilarity = "1+G^2",
    similarity_cap: SimilarityCap = 2.0,
    frequency_cap: FrequencyCap = 9.0,
) -> Weighting:
    """A base weight, raised for updates with FedQS's feedback bit; they sum to 1."""
    return FedQSWeights(
        base,
        phi=phi,
        feedback=feedback,
        speed=feedback_speed,
        similarity=feedback_similarity,
        similarity_cap=similarity_cap,
        frequency_cap=frequency_cap,
    )
