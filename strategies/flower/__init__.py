"""Strategies on Flower's grids: Flower's interface of a strategy, and the fleet of real clients."""
