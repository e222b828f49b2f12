"""Which of the idle clients train next."""

from strategies.selectors.base import Selector
from strategies.selectors.hetero_select import HeteroSelect
from strategies.selectors.oort import OortSelector

__all__ = ["HeteroSelect", "OortSelector", "Selector"]
