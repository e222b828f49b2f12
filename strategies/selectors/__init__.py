"""Which of the idle clients train next."""

from strategies.selectors.base import Selector
from strategies.selectors.hetero_select import HeteroSelect
from strategies.selectors.oort import OortSelector
from strategies.selectors.paced import PacedSelector

__all__ = ["HeteroSelect", "OortSelector", "PacedSelector", "Selector"]
