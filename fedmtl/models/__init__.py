"""Models: a shared backbone with a head per task."""

from fedmtl.models.multitask import MultiTaskModel

__all__ = ["MultiTaskModel"]
