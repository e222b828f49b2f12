"""An experiment: a configuration made into data, a model, devices and a strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmtl.balancing import BALANCERS, check_balancing
from fedmtl.components import check_options, choose, path_options
from fedmtl.compression import COMPRESSORS, build_compressor
from fedmtl.config import ExperimentConfig, complete, parse_config, read_toml
from fedmtl.data.build import build_data, data_options
from fedmtl.data.federated import FederatedData
from fedmtl.data.sources import SOURCES
from fedmtl.errors import ConfigError
from fedmtl.inputs import Input, by_contents, read_input
from fedmtl.models import MODELS, MultiTaskModel, build_model
from fedmtl.models.own_state import refuse_hidden_state
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainSettings
from fedmtl.randomness import default_generators, derive_seed
from simulations.devices import DEVICES, build_devices, device_options
from simulations.devices.profile import Devices
from simulations.digests import experiment_digest
from simulations.presets import preset_tables
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import build_strategy, strategy_options
from strategies.task_weights import BALANCING, build_task_weights


class Experiment:
    """A checked configuration and what it describes; the parts are built when first asked for.

    Parameters
    ----------
    config
        The configuration. Its components' options are checked at once.

    Attributes
    ----------
    tables
        The configuration with every default written out, as TOML tables: complete and re-runnable.

    Raises
    ------
    ConfigError
        If a component or an option is unknown or out of range.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config
        self._options = {
            "data": data_options(config),
            "model": _options(MODELS, config.model.name, config.model.options, "model"),
            "devices": device_options(config.devices),
            "strategy": strategy_options(config.strategy.name, config.strategy.options),
            "compression": _options(COMPRESSORS, config.compression.name, config.compression.options, "compression"),
            "balancing": _options(BALANCING, config.balancing.name, config.balancing.options, "balancing"),
        }
        self.tables = complete(config, self._options)
        self._composed()  # refuses parts that do not go together
        if config.balancing.name in BALANCERS:
            check_balancing(Balancing(config.balancing.name, self._options["balancing"]), config.training.batch_size)

    @classmethod
    def from_config(cls, config: ExperimentConfig) -> Experiment:
        """The experiment that a configuration describes."""
        return cls(config)

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        overrides: Sequence[str] = (),
        tables: Mapping[str, Any] | None = None,
        *,
        preset: str | None = None,
    ) -> Experiment:
        """The experiment of a TOML file, a preset, tables or the defaults, with ``section.key=value`` overrides.

        Parameters
        ----------
        path
            A TOML file.
        overrides
            What is set beside it, the later of two for one key.
        tables
            A configuration, where there is no file.
        preset
            The name of an experiment that ships with FedMTL (:func:`simulations.presets.presets`), instead of these.

        Raises
        ------
        ConfigError
            If the file, the preset's name, a key, a type or a value is wrong, or a preset is not alone.
        """
        if preset is None:
            given = dict(tables or {}) if path is None else read_toml(Path(path))
            return cls(parse_config(given, overrides, where=str(path or "")))
        if path is not None or tables is not None:
            raise ConfigError(f"the preset {preset!r} is an experiment by itself: give no file and no tables with it")
        return cls(parse_config(preset_tables(preset), overrides, where=f"preset {preset}"))

    @property
    def digest(self) -> str:
        """A fingerprint of all that determines the result (:mod:`simulations.digests`): of what is read, the contents.

        Raises
        ------
        DataError
            If a file or folder that it reads is not there.
        """
        return experiment_digest(by_contents(self.tables, self.inputs))

    @cached_property
    def inputs(self) -> dict[str, Input]:
        """The files and folders that it reads, by ``section.key``, as they are when this is first asked for.

        Raises
        ------
        DataError
            If one is not there, or cannot be read.
        """
        builders = {"data": SOURCES[self.config.data.source], "devices": DEVICES[self.config.devices.kind]}
        named = {
            f"{section}.{key}": self._options[section][key]
            for section, build in builders.items()
            for key in path_options(build)
        }
        return {key: read_input(key, path) for key, path in named.items() if path}

    @cached_property
    def data(self) -> FederatedData:
        """The clients' data and the server's test set."""
        data = build_data(self.config)
        if (target := self.config.stop.target) is not None and target.task not in (task.name for task in data.tasks):
            names = ", ".join(task.name for task in data.tasks)
            raise ConfigError(f"stop.target.task = {target.task!r} is not a task of this experiment; known: {names}")
        return data

    def new_model(self) -> MultiTaskModel:
        """A module with the initial values that the model's seed gives."""
        name, seed = self.config.model.name, self.config.seeds.model
        return build_model(name, self._options["model"], self.data.input_shape, self.data.tasks, seed)

    @cached_property
    def initial(self) -> GlobalModel:
        """Version 0 of the global model."""
        model = self.new_model()
        layout = ParameterLayout.of(model)
        return GlobalModel(0, layout.pack(model), layout)

    @property
    def layout(self) -> ParameterLayout:
        """Layout of the model's vector."""
        return self.initial.layout

    @cached_property
    def devices(self) -> Devices:
        """The clients' devices."""
        section, seed = self.config.devices, self.config.seeds.devices
        batch = self.data.train.features[: self.config.training.batch_size]
        with default_generators(derive_seed(seed, "devices")):
            return build_devices(section, self.config.data.clients, seed, model=self.new_model(), batch=batch)

    @property
    def settings(self) -> TrainSettings:
        """How clients train, unless a policy says otherwise."""
        return TrainSettings(**self.config.training.model_dump(exclude_none=True))

    @cached_property
    def nominal_seconds(self) -> NDArray[np.float64]:
        """Seconds that each client takes for one plain job of its own size, without jitter: who is fast or slow."""
        settings, sizes = self.settings, self.data.shards.sizes
        # A client that drops its only batch is busy as one that has a whole one.
        steps = np.array([settings.local_steps(max(size, settings.batch_size)) for size in sizes.tolist()])
        return self.devices.nominal_seconds(steps)

    def new_strategy(self) -> Strategy:
        """A fresh strategy, initialised with version 0.

        Raises
        ------
        ConfigError
            If it cannot work with the model or the data.
        """
        strategy = self._composed()
        with default_generators(derive_seed(self.config.seed, "examination")):
            refuse_hidden_state(self.new_model(), self.data.train.features[:2])
            strategy.examine(self.new_model(), self.data.train.features)
        strategy.initialise(self.initial, self.settings, self.config.seed, self.config.seeds.model)
        return strategy

    def _composed(self) -> Strategy:
        task_weights = build_task_weights(self.config.balancing.name, self._options["balancing"])
        strategy = build_strategy(self.config.strategy.name, self._options["strategy"], task_weights)
        strategy.expect(self.config.data.clients)
        strategy.train_with(self.settings)
        strategy.guard_by(self.config.strategy.guard)
        compressor = build_compressor(self.config.compression.name, self._options["compression"])
        if compressor is not None:
            strategy.compress(compressor)
        return strategy


def _options(table: Mapping[str, Any], name: str, given: Mapping[str, Any], section: str) -> dict[str, Any]:
    build = choose(table, name, f"{section}.name")
    return check_options(build, given, section, name)
