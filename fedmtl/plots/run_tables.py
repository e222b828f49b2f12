"""Everything that pictures of a run are drawn from."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedmtl.records import read_summary, read_table


@dataclass(frozen=True, eq=False)
class RunTables:
    """A finished run.

    Attributes
    ----------
    summary
        As in ``summary.json``.
    updates, aggregations, evaluations
        See :mod:`fedmtl.records.schemas`.
    partition, devices
        See :mod:`fedmtl.records.setting`; None where the run kept none (real clients report neither).
    ntk, ntk_groups
        The kernels that the run measured, of all clients and of groups of them, or None.
    configuration
        The run's experiment, complete; empty where it cannot be read.
    """

    summary: Mapping[str, Any]
    updates: pa.Table
    aggregations: pa.Table
    evaluations: pa.Table
    partition: pa.Table | None
    devices: pa.Table | None
    ntk: pa.Table | None = None
    ntk_groups: pa.Table | None = None
    configuration: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path, summary: Mapping[str, Any] | None = None) -> RunTables:
        """The run in a directory; `summary` if it is not written yet.

        Raises
        ------
        RunDirectoryError
            If the directory holds no finished run.
        """
        known = read_summary(directory) if summary is None else summary
        updates, aggregations, evaluations = (
            read_table(directory, name) for name in ("updates", "aggregations", "evaluations")
        )
        partition, devices, ntk, ntk_groups = (
            read_table(directory, name) if (directory / f"{name}.parquet").is_file() else None
            for name in ("partition", "devices", "ntk", "ntk_groups")
        )
        configuration = _configuration(directory)
        return cls(known, updates, aggregations, evaluations, partition, devices, ntk, ntk_groups, configuration)

    @property
    def convergence(self) -> bool:
        """Whether the run recorded convergence (``records.convergence``)."""
        return "step_norm" in self.aggregations.column_names

    @property
    def tasks(self) -> list[Mapping[str, Any]]:
        """Name, metric and direction of each task."""
        return list(self.summary["tasks"])

    @property
    def clock(self) -> str:
        """What its times are: those of a simulated fleet are virtual."""
        return "time" if "connections" in self.summary else "virtual time"

    @property
    def diverged(self) -> bool:
        """Whether its evaluations, or a server step that could not be taken, show that it diverged."""
        return bool(self.summary.get("diverged"))

    @property
    def class_names(self) -> list[str]:
        """What the data call the classes of the partition; empty where nobody knows."""
        return self._names(b"classes")

    @property
    def client_names(self) -> list[str]:
        """What the data call the clients; empty where they have no names."""
        return self._names(b"clients")

    def _names(self, key: bytes) -> list[str]:
        metadata = {} if self.partition is None else self.partition.schema.metadata or {}
        return list(json.loads(metadata.get(key, b"[]")))

    @property
    def applied(self) -> pa.Table:
        """The uploads that went into a version."""
        return self.updates.filter(pc.is_valid(self.updates["applied_version"]))

    def curve(self, task: str, metric: str, group: str, against: str) -> tuple[np.ndarray, np.ndarray]:
        """A metric of a task in a group against ``"time"`` or ``"version"``; empty where it was not measured."""
        table = self.evaluations
        chosen = pc.and_(pc.equal(table["task"], task), pc.equal(table["metric"], metric))
        rows = table.filter(pc.and_(chosen, pc.equal(table["group"], group)))
        return rows[against].to_numpy(), rows["value"].to_numpy()

    def times_of_versions(self) -> tuple[np.ndarray, np.ndarray]:
        """Every version, the first that was evaluated and then all that were made, and when it was made."""
        made, start = self.aggregations, self.evaluations.slice(0, 1)
        tables = [table.select(["version", "time"]) for table in (start, made)]
        whole = pa.concat_tables(tables)
        return whole["version"].to_numpy(), whole["time"].to_numpy()

    def seconds(self) -> np.ndarray | None:
        """Seconds that each client's device takes for the same work, by client number; None where unknown."""
        if self.devices is None:
            return None
        seconds: np.ndarray = self.devices["seconds"].to_numpy()
        return seconds


def _configuration(directory: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads((directory / "experiment.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}
