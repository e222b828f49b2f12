"""What a study says, in pictures: ranks, final values, times to targets, and curves of the best."""

from simulations.studies.plots.gallery import Picture, draw

__all__ = ["Picture", "draw"]
