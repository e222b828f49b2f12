"""Devices whose speeds were measured: a table with a row for each client."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from simulations.devices.kinds import Per, Speeds, World

_COLUMNS: dict[str, Per] = {"seconds_per_order": "order", "seconds_per_step": "step"}


def trace(
    world: World,
    *,
    file: Annotated[
        str, Param("CSV file with the columns client,seconds_per_order or client,seconds_per_step", path=True)
    ],
) -> Speeds:
    """Speeds read from a CSV file: a row for each client 0, 1, 2, ..., in any order.

    The seconds are taken as they are, whatever passes balancer and policy add to a plain step.

    Raises
    ------
    ConfigError
        If the file cannot be read, a cell is wrong, or a client is missing or named twice; names file, line, column and
        client.
    """
    path = Path(file)
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.reader(lines, skipinitialspace=True)
            column = _column(path, rows)
            seconds = _seconds(path, column, rows, world.clients)
    except OSError as error:
        raise ConfigError(f"devices.file: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"devices.file: {path} is not a text file in UTF-8: {error.reason}") from None
    except csv.Error as error:
        raise ConfigError(f"devices.file: {path} is not a CSV file: {error}") from None
    return Speeds.per(_COLUMNS[column], seconds, measured=True)


def _column(path: Path, rows: Iterator[list[str]]) -> str:
    """The name of the second column."""
    header = [cell.strip() for cell in next(rows, [])]
    for column in _COLUMNS:
        if header == ["client", column]:
            return column
    wanted = " or ".join(f"client,{column}" for column in _COLUMNS)
    raise ConfigError(f"{path}, line 1: the header is {','.join(header)!r}, expected {wanted}")


def _seconds(path: Path, column: str, rows: Iterator[list[str]], clients: int) -> NDArray[np.float64]:
    seconds = np.full(clients, math.nan)
    lines: dict[int, int] = {}
    for row in rows:
        line: int = rows.line_num  # type: ignore[attr-defined]
        if not row:
            continue
        if len(row) != 2:
            raise ConfigError(f"{path}, line {line}: {len(row)} columns, expected 2: client,{column}")
        client = _client(path, line, row[0].strip(), clients)
        if client in lines:
            raise ConfigError(
                f"{path}, line {line}, column client: client {client} is there already, in line {lines[client]}"
            )
        lines[client] = line
        seconds[client] = _positive(path, line, column, client, row[1].strip())
    if missing := [client for client in range(clients) if client not in lines]:
        raise ConfigError(
            f"{path}, column client: client {missing[0]} is missing ({len(missing)} of {clients} are): every client "
            f"from 0 to {clients - 1} needs a row (data.clients = {clients})"
        )
    return seconds


def _client(path: Path, line: int, text: str, clients: int) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"{path}, line {line}, column client: {text!r} is not a client's number (0, 1, 2, ...)")
    if int(text) >= clients:
        raise ConfigError(
            f"{path}, line {line}, column client: there is no client {text}, they are 0 to {clients - 1} "
            f"(data.clients = {clients})"
        )
    return int(text)


def _positive(path: Path, line: int, column: str, client: int, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{path}, line {line}, column {column}, client {client}: {text!r} is not a positive number")
    return seconds
