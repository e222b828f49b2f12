"""The server app: what `flwr run` starts, in Flower's simulation engine and in a deployment.

It builds the experiment of the run configuration and runs it as every other experiment is run; only the fleet differs.
In Flower's simulation engine time is virtual and Flower's nodes are the workers; in a deployment they are the clients.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from flwr.app import Context, UserConfig
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid import InMemoryGrid

from fedmtl.errors import ConfigError
from fedmtl.records.divergence import divergence_words
from fedmtl.run_config import experiment_config
from simulations.baselines import single_task_values
from simulations.experiment import Experiment
from simulations.fleet import SimulatedFleet
from simulations.runner import run
from simulations.workers.grid import GridWorkers
from strategies.core.fleet import Fleet
from strategies.flower.fleet import GridFleet

app = ServerApp()


class Stopped(Exception):  # noqa: N818 (no error)
    """A signal ended a run, which can go on."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run configuration describes.

    Raises
    ------
    Stopped
        If a signal ended the run before its time; Flower then reports it as failed, with what to do.
    """
    torch.set_num_threads(1)
    options = context.run_config
    experiment = Experiment.from_config(experiment_config(options))
    if not isinstance(grid, InMemoryGrid):
        _refuse_simulated_only(experiment)
    result = run(
        experiment,
        Path(str(options["out"])) if options.get("out") else None,
        resume=bool(options.get("resume")),
        overwrite=bool(options.get("overwrite")),
        pictures=bool(options.get("pictures", True)),
        fleet=lambda experiment: fleet_on(grid, experiment, options),
        single_task=single_task_values,
    )
    if diverged := result.summary.get("diverged"):
        logging.getLogger("flwr").warning("the run %s", divergence_words(diverged))
    if result.interrupted:
        raise Stopped(f"the run was stopped before its end; go on with resume = true and out = '{result.directory}'")


def _refuse_simulated_only(experiment: Experiment) -> None:
    """Refuse what only a simulation can do, before real clients are asked for anything.

    Raises
    ------
    ConfigError
        If the experiment has it.
    """
    if experiment.config.records.baselines:
        raise ConfigError("records.baselines trains single-task models in a simulation; leave it out for real clients")
    if reason := experiment.new_strategy().only_simulated:
        raise ConfigError(f"{reason}: real clients cannot be asked for it")
    if experiment.data.idle and len(experiment.data.active) < experiment.data.clients:
        if experiment.config.training.tiny_clients == "skip_client":
            raise ConfigError(
                "training.tiny_clients = 'skip_client' leaves clients out, and real ones cannot be kept idle: "
                "start those that have a batch of examples"
            )
        raise ConfigError(
            f"tasks.only = {experiment.config.tasks.only!r} leaves clients without a task, and real clients cannot be "
            "kept idle: start those that own it, with tasks.names"
        )


def fleet_on(grid: Grid, experiment: Experiment, options: UserConfig) -> Fleet:
    """The fleet for a grid: simulated devices over Flower's simulation engine, real clients over any other grid.

    Parameters
    ----------
    grid
        What Flower gave the server app.
    experiment
        What runs.
    options
        The run configuration. Its key ``ttl`` holds the seconds that a client has for an order, ``patience`` those to
        wait for clients, and ``clients`` how many to wait for (0: all of the experiment's).

    Raises
    ------
    ConfigError
        If more clients are to be waited for than there are.
    """
    ttl, patience = float(options.get("ttl", 3600.0)), float(options.get("patience", 600.0))
    if isinstance(grid, InMemoryGrid):
        workers = GridWorkers(grid, ttl=ttl, patience=patience)
        return SimulatedFleet(experiment.data, experiment.devices, workers, experiment.layout)
    expected = int(options.get("clients", 0)) or experiment.config.data.clients
    if expected > experiment.data.clients:
        raise ConfigError(
            f"clients = {expected}: the run would wait for more clients than the {experiment.data.clients} that "
            "data.clients says there are; lower one or raise the other"
        )
    return GridFleet(grid, expected=expected, population=experiment.data.clients, ttl=ttl, patience=patience)
