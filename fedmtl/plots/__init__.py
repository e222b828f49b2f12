"""Pictures of a run and of several runs, drawn from their directories alone."""

from fedmtl.plots.gallery import PLOTS, Plot, make_plots
from fedmtl.plots.run_tables import RunTables

__all__ = ["PLOTS", "Plot", "RunTables", "make_plots"]
