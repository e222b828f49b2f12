"""Checkpoints: one file that is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedmtl.errors import CheckpointError, RunDirectoryError
from fedmtl.files import replacing
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel
from fedmtl.results import RESULTS
from fedmtl.state import join, split

_FILE = "state.safetensors"

FORMAT = 2
"""What the state in a checkpoint means. The number goes up when this version cannot go on from what an older one saved;
checkpoints without a number are of format 1."""


def digest(tables: Mapping[str, Any]) -> str:
    """A fingerprint of a configuration."""
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:16]


def save_checkpoint(directory: Path, state: Mapping[str, Any], configuration: str) -> None:
    """Write a state, in place of the one before.

    The tensors are a safetensors file and the rest is JSON in its header, so that one rename replaces both. A process
    that is killed at any moment leaves the old checkpoint or the new one.

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
    plain, tensors = split(state)
    header = {"state": json.dumps(plain), "configuration": configuration, "format": str(FORMAT)}
    header["results"] = str(RESULTS)
    _save(directory / _FILE, tensors, header)


def save_model(path: Path, model: GlobalModel) -> None:
    """Write a model's parameters and buffers by their names in the module, with the version in the header.

    Raises
    ------
    RunDirectoryError
        If the file cannot be written.
    """
    views = model.layout.views(model.vector)
    tensors = {entry.name: view for entry, view in zip(model.layout.entries, views, strict=True)}
    _save(path, tensors, {"version": str(model.version)})


def load_model(path: Path, layout: ParameterLayout) -> GlobalModel:
    """The model that `save_model` wrote.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or holds a model of another layout.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            version = int((file.metadata() or {})["version"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"cannot read the model in {path}: {error}") from error
    expected = {entry.name: entry.shape for entry in layout.entries}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise CheckpointError(f"{path} holds another model: {wrong[0]} differs from what the experiment describes")
    vector = torch.cat([tensors[entry.name].reshape(-1).float() for entry in layout.entries])
    return GlobalModel(version, vector, layout)


def _save(target: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(target) as temporary:
        try:
            # Clones: safetensors refuses views that share storage, as the entries of a flat vector do.
            save_file({name: tensor.detach().clone() for name, tensor in tensors.items()}, temporary, metadata)
        except SafetensorError as error:
            raise RunDirectoryError(f"cannot write {target}: {error}; free space there") from error


def check_format(directory: Path) -> None:
    """See whether the checkpoint in a directory, if there is one, can be gone on from; changes nothing.

    Raises
    ------
    CheckpointError
        If it is damaged, or another version of FedMTL made it.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / _FILE
    if not path.exists():
        return
    try:
        with safe_open(path, "pt") as file:
            _refuse_other_version(path, file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(_damaged(path, error)) from error


def _refuse_other_version(path: Path, metadata: Mapping[str, str]) -> None:
    for kind, own, what in (
        ("format", FORMAT, "whose state this version cannot read"),
        ("results", RESULTS, "which computes other results than this version"),
    ):
        found = metadata.get(kind, "1")
        if found != str(own):
            age = "a newer" if found.isdecimal() and int(found) > own else "an older"
            raise CheckpointError(
                f"{path} was made by {age} FedMTL {what}: start the run again, or finish it with the version that "
                f"began it (the number of its {kind} is {found}, this version's {own})"
            )


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged ({error}); start again with --overwrite"


def load_checkpoint(directory: Path, configuration: str) -> dict[str, Any] | None:
    """The state that was saved last, or None if none was.

    Raises
    ------
    CheckpointError
        If the file is damaged, another version of FedMTL made it, or it belongs to another configuration.
    """
    from safetensors import SafetensorError, safe_open

    path = directory / _FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            _refuse_other_version(path, metadata)
            # Clones, because the file's tensors begin anywhere: sums are taken in another order where memory is aligned
            # otherwise, and a resumed run shall have the same bits.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if metadata["configuration"] != configuration:
            raise CheckpointError(
                f"{path} belongs to another configuration; resume with the experiment.toml it was made with"
            )
        state: dict[str, Any] = join(json.loads(metadata["state"]), tensors)
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(_damaged(path, error)) from error
    return state
