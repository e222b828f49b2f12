"""How much each update counts in an aggregation."""

from strategies.weightings.agreement import Agreement
from strategies.weightings.changed import ChangedWeights
from strategies.weightings.data_size import DataSize
from strategies.weightings.fedqs import FedQSWeights
from strategies.weightings.kafl import KAFLWeights
from strategies.weightings.normalised import Normalised
from strategies.weightings.share import Capped, ShareOfAll
from strategies.weightings.staleness import Discounted, Staleness, constant, hinge, polynomial
from strategies.weightings.steps import LocalSteps
from strategies.weightings.uniform import Uniform
from strategies.weightings.vectors import VectorWeighting

__all__ = [
    "Agreement",
    "Capped",
    "ChangedWeights",
    "DataSize",
    "Discounted",
    "FedQSWeights",
    "KAFLWeights",
    "LocalSteps",
    "Normalised",
    "ShareOfAll",
    "Staleness",
    "Uniform",
    "VectorWeighting",
    "constant",
    "hinge",
    "polynomial",
]
