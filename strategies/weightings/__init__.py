"""How much each update counts in an aggregation."""

from strategies.weightings.data_size import DataSize
from strategies.weightings.fedqs import FedQSWeights
from strategies.weightings.staleness import Discounted, Staleness, constant, hinge, polynomial
from strategies.weightings.uniform import Uniform

__all__ = ["DataSize", "Discounted", "FedQSWeights", "Staleness", "Uniform", "constant", "hinge", "polynomial"]
