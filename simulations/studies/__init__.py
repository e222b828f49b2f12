"""Studies: grids of experiments over seeds, their tables and their pictures."""
