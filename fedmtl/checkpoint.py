"""Checkpoints: one file that is there whole or not at all, and that is read as it was written or not at all."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedmtl.errors import CheckpointError, WriteError
from fedmtl.files import replacing
from fedmtl.packing import pack, unpack
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel
from fedmtl.results import RESULTS

_FILE = "state.safetensors"

FORMAT = 3
"""What the state in a checkpoint means. The number goes up when this version cannot go on from what an older one saved;
checkpoints without a number are of format 1."""

_CHECKSUM = "checksum"


def digest(tables: Mapping[str, Any]) -> str:
    """A fingerprint of a configuration."""
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:16]


def save_checkpoint(directory: Path, state: Mapping[str, Any], configuration: str) -> None:
    """Write a state, in place of the one before.

    All of it lies in the tensors of one safetensors file (:mod:`fedmtl.packing`), so that one rename replaces it. A
    process that is killed at any moment leaves the old checkpoint or the new one. The header has a checksum of
    everything.

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
    WriteError
        If the file cannot be written, because the disk is full, say; the old checkpoint is then untouched.
    """
    header = {"configuration": configuration, "format": str(FORMAT), "results": str(RESULTS)}
    _save(directory / _FILE, pack(state), header)


def save_model(path: Path, model: GlobalModel) -> None:
    """Write a model's parameters and buffers by their names in the module, with the version in the header.

    The header has a checksum of everything, too.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    views = model.layout.views(model.vector)
    # Clones: safetensors refuses views that share storage, as the entries of a flat vector do.
    tensors = {entry.name: view.detach().clone() for entry, view in zip(model.layout.entries, views, strict=True)}
    _save(path, tensors, {"version": str(model.version)})


def load_model(path: Path, layout: ParameterLayout) -> GlobalModel:
    """The model that `save_model` wrote, or an older version of it, which wrote no checksum.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or holds a model of another layout.
    """
    with _reading(path, f"cannot read the model in {path}: it", "run the experiment again with --overwrite"):
        metadata, tensors = _load(path)
        if metadata.keys() != {"version"}:
            _verify(metadata, tensors)
        version = int(metadata["version"])
    expected = {entry.name: entry.shape for entry in layout.entries}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise CheckpointError(f"{path} holds another model: {wrong[0]} differs from what the experiment describes")
    vector = torch.cat([tensors[entry.name].reshape(-1).float() for entry in layout.entries])
    return GlobalModel(version, vector, layout)


def check_format(directory: Path) -> None:
    """See whether the checkpoint in a directory, if there is one, can be gone on from; changes nothing.

    Raises
    ------
    CheckpointError
        If it is damaged, or another version of FedMTL made it.
    """
    from safetensors import safe_open

    path = directory / _FILE
    if path.exists():
        with _reading(path), safe_open(path, "pt") as file:
            _refuse_other_version(path, file.metadata() or {})


def load_checkpoint(directory: Path, configuration: str) -> dict[str, Any] | None:
    """The state that was saved last, or None if none was.

    Raises
    ------
    CheckpointError
        If the file is damaged, another version of FedMTL made it, or it belongs to another configuration.
    """
    path = directory / _FILE
    if not path.exists():
        return None
    check_format(directory)
    with _reading(path):
        metadata, packed = _load(path)
        _verify(metadata, packed)
        if metadata["configuration"] != configuration:
            raise CheckpointError(
                f"{path} belongs to another configuration; resume with the experiment.toml it was made with"
            )
        state: dict[str, Any] = unpack(packed)
    return state


def _save(target: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    whole = {**metadata, _CHECKSUM: _checksum(metadata, tensors)}
    with replacing(target) as temporary:
        try:
            save_file(dict(tensors), temporary, whole)
        except SafetensorError as error:
            raise WriteError(f"cannot write {target}: {error}; free space there") from error
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Give the header's metadata an order: safetensors writes them in one that differs from process to process."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        file.seek(8)
        file.write(text.ljust(length))


def _load(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors, which are the file's own memory."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)


def _checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes, every bit of the tensors and all metadata but itself."""
    said = {key: value for key, value in metadata.items() if key != _CHECKSUM}
    entries = [(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in sorted(tensors.items())]
    found = hashlib.sha256(json.dumps([said, entries], sort_keys=True).encode())
    for name, _, _ in entries:
        flat = tensors[name].detach().cpu().reshape(-1)
        if flat.numel():
            found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


def _verify(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    if metadata[_CHECKSUM] != _checksum(metadata, tensors):
        raise ValueError("its checksum differs: what is there is not what was written")


@contextmanager
def _reading(path: Path, lead: str = "", remedy: str = "start again with --overwrite") -> Iterator[None]:
    """Whatever is wrong with a file becomes a `CheckpointError` that names it and says what to do."""
    from safetensors import SafetensorError

    lead = lead or str(path)
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{lead} cannot be read ({error.strerror or error}); {remedy}") from error
    except KeyError as error:
        raise CheckpointError(f"{lead} is damaged ({error} is missing); {remedy}") from error
    except (SafetensorError, ValueError, TypeError, IndexError, RuntimeError, StopIteration, zlib.error) as error:
        raise CheckpointError(f"{lead} is damaged ({error}); {remedy}") from error


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
