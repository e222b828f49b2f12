"""Models: a shared backbone with a head per task."""

from fedmtl.models.multitask import MultiTaskModel
from fedmtl.models.table import MODELS, build_model

__all__ = ["MODELS", "MultiTaskModel", "build_model"]
