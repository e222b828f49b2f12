"""The problem and its mathematics: tasks, models, data, parameters, balancing, records, plots, configuration."""
