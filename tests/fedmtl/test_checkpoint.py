"""A checkpoint is read as it was written or refused by name, whatever became of its file."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedmtl.checkpoint import check_format, load_checkpoint, load_model, save_checkpoint, save_model
from fedmtl.errors import CheckpointError, UserError
from fedmtl.packing import pack
from fedmtl.parameters import Entry, ParameterLayout
from fedmtl.protocol import GlobalModel

LAYOUT = ParameterLayout(
    (Entry("backbone.weight", (2, 2), 0, 4), Entry("heads.task.weight", (3,), 4, 7)),
    shared=slice(0, 4),
    heads=(slice(4, 7),),
    buffers=slice(7, 7),
)
MODEL = GlobalModel(7, torch.linspace(-1.0, 1.0, 7), LAYOUT)
STATE = {
    "model": torch.linspace(-1.0, 1.0, 50),
    "jobs": [{"client": c, "seed": 2**63 - c, "at": c / 3, "terms": {}} for c in range(40)],
    "due": math.inf,
    "text": "\ud800 and more",
}


def path_in(directory: Path) -> Path:
    return directory / "state.safetensors"


def damages(data: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "one byte": data[:1],
        "half the header": data[:60],
        "half the tensors": data[: len(data) - 40],
        "a byte too many": data + b"\0",
        "zeros": bytes(len(data)),
        "a huge header": b"\xff" * 8 + data[8:],
        "another program's": b"PK\3\4" + data,
        "twice": data + data,
    }


def flips(data: bytes, count: int) -> list[bytes]:
    """The file with a bit flipped: at every byte of the header's beginning, and at random ones."""
    moments = random.Random(0)
    header = 8 + int.from_bytes(data[:8], "little")
    places = [*range(8), *(moments.randrange(8, header) for _ in range(count)), *range(header, header + 8)]
    places += [moments.randrange(header, len(data)) for _ in range(count)]
    return [data[:place] + bytes([data[place] ^ 1 << moments.randrange(8)]) + data[place + 1 :] for place in places]


def test_a_state_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, STATE, "mine")
    back = load_checkpoint(tmp_path, "mine")
    assert back is not None
    assert torch.equal(back.pop("model"), STATE["model"])
    assert back == {name: value for name, value in STATE.items() if name != "model"}


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, STATE, "mine")
    path = path_in(tmp_path)
    data, refused = path.read_bytes(), 0
    whole = pack(STATE)
    for damaged in flips(data, 150):
        path.write_bytes(damaged)
        try:
            back = load_checkpoint(tmp_path, "mine")
        except CheckpointError as error:
            assert str(path) in str(error)  # noqa: PT017 (a flip in the padding is none)
            refused += 1
        else:  # in the padding of the header, say
            assert all(torch.equal(tensor, whole[name]) for name, tensor in pack(back).items())
    assert refused > 250


def test_every_bit_of_the_tensors_counts(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"v": torch.zeros(2)}, "mine")
    path = path_in(tmp_path)
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for place in range(header, len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(CheckpointError, match=r"checksum differs.*--overwrite"):
            load_checkpoint(tmp_path, "mine")


@pytest.mark.parametrize("what", list(damages(bytes(100))))
@pytest.mark.parametrize("read", [lambda path: load_checkpoint(path, "mine"), check_format])
def test_a_damaged_file_is_named_with_a_remedy(tmp_path: Path, what: str, read: Callable[[Path], Any]) -> None:
    save_checkpoint(tmp_path, STATE, "mine")
    path = path_in(tmp_path)
    path.write_bytes(damages(path.read_bytes())[what])
    with pytest.raises(CheckpointError, match=r"state.safetensors is damaged .*--overwrite"):
        read(tmp_path)


def test_a_directory_in_the_place_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    path_in(tmp_path).mkdir()
    with pytest.raises(CheckpointError, match=r"state.safetensors (cannot be read|is damaged)"):
        load_checkpoint(tmp_path, "mine")
    with pytest.raises(UserError, match=r"cannot write .*state.safetensors"):
        save_checkpoint(tmp_path, STATE, "mine")


def test_a_failed_save_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, STATE, "mine")
    with pytest.raises(TypeError, match="set"):
        save_checkpoint(tmp_path, {"a": {1}}, "mine")
    assert load_checkpoint(tmp_path, "mine") is not None


@pytest.mark.slow
def test_the_size_of_a_state_has_no_limit_below_that_of_the_disk(tmp_path: Path) -> None:
    """Text beyond what the header of a safetensors file may hold, 100 MB."""
    text = "no zlib can make this small" * 4_000_000
    save_checkpoint(tmp_path, {"text": text}, "mine")
    back = load_checkpoint(tmp_path, "mine")
    assert back is not None
    assert back["text"] == text


def test_the_same_model_is_the_same_bytes(tmp_path: Path) -> None:
    for name in "abcdef":
        save_model(tmp_path / name, MODEL)
    assert len({(tmp_path / name).read_bytes() for name in "abcdef"}) == 1


def test_a_damaged_model_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, MODEL)
    data = path.read_bytes()
    assert (load_model(path, LAYOUT).version, load_model(path, LAYOUT).vector.tolist()) == (7, MODEL.vector.tolist())
    for damaged in [*flips(data, 100), *damages(data).values()]:
        path.write_bytes(damaged)
        try:
            back = load_model(path, LAYOUT)
        except CheckpointError as error:
            assert str(path) in str(error)  # noqa: PT017 (a flip in the padding is none)
        else:
            assert (back.version, back.vector.tolist()) == (7, MODEL.vector.tolist())


@pytest.mark.parametrize("absent", ["missing", "directory"])
def test_a_model_that_is_not_there_is_named(tmp_path: Path, absent: str) -> None:
    path = tmp_path / "model.safetensors"
    if absent == "directory":
        path.mkdir()
    with pytest.raises(CheckpointError, match=r"cannot read the model in .*model.safetensors"):
        load_model(path, LAYOUT)


def test_a_model_of_an_older_version_without_a_checksum_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, MODEL)
    save_file(load_file(path), path, {"version": "3"})
    back = load_model(path, LAYOUT)
    assert (back.version, back.vector.tolist()) == (3, MODEL.vector.tolist())
