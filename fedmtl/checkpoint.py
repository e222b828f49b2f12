"""Checkpoints: one file that is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmtl.errors import CheckpointError, RunDirectoryError
from fedmtl.files import replacing
from fedmtl.state import join, split

_FILE = "state.safetensors"


def digest(tables: Mapping[str, Any]) -> str:
    """A fingerprint of a configuration."""
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:16]


def save_checkpoint(directory: Path, state: Mapping[str, Any], configuration: str) -> None:
    """Write a state, in place of the one before.

    The tensors are a safetensors file and the rest is JSON in its header, so that one rename replaces both. A process that is
    killed at any moment leaves the old checkpoint or the new one.

    Parameters
    ----------
    directory
        Where checkpoints live; made if absent.
    state
        A nested dictionary (see :mod:`fedmtl.state`).
    configuration
        Fingerprint of the configuration that the state belongs to.

    Raises
    ------
    RunDirectoryError
        If the file cannot be written, because the disk is full, say; the old checkpoint is then untouched.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain, tensors = split(state)
    metadata = {"state": json.dumps(plain), "configuration": configuration}
    target = directory / _FILE
    with replacing(target) as temporary:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
        except SafetensorError as error:
            raise RunDirectoryError(f"cannot write {target}: {error}; free space there") from error


def load_checkpoint(directory: Path, configuration: str) -> dict[str, Any] | None:
    """The state that was saved last, or None if none was.

    Raises
    ------
    CheckpointError
        If the file is damaged, or belongs to another configuration.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / _FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if metadata["configuration"] != configuration:
            raise CheckpointError(
                f"{path} belongs to another configuration; resume with the experiment.toml it was made with"
            )
        state: dict[str, Any] = join(json.loads(metadata["state"]), tensors)
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); start again with --overwrite") from error
    return state
