"""Images: their channels come first, wherever they were in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedmtl.data.files import files
from fedmtl.data.layout import channels_axis, channels_first
from fedmtl.errors import ConfigError, DataError
from fedmtl.models import build_model

Y = np.arange(20) % 2


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((3, 28, 28), "first"),
        ((1, 4, 4), "first"),
        ((3, 20, 30), "first"),
        ((64, 8, 8), "first"),
        ((13, 20, 30), "first"),
        ((28, 28, 3), "last"),
        ((28, 28, 1), "last"),
        ((20, 30, 4), "last"),
        ((4, 4, 3), "last"),
        ((28, 28), "first"),
        ((9,), "first"),
        ((2, 3, 4, 5), "first"),
    ],
)
def test_the_shape_says_where_the_channels_are(shape: tuple[int, ...], axis: str) -> None:
    assert channels_axis(shape, "auto", "a.npz") == axis


@pytest.mark.parametrize("shape", [(3, 28, 3), (1, 28, 3), (1, 28, 1), (3, 3, 3), (28, 28, 8), (8, 8, 8)])
def test_a_shape_that_says_it_both_ways_is_refused_with_the_remedy(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"a\.npz: examples of shape .* set data\.channels = 'first' or 'last'"):
        channels_axis(shape, "auto", "a.npz")
    assert channels_axis(shape, "last", "a.npz") == "last"


def test_images_are_turned_pixel_by_pixel() -> None:
    images = np.random.default_rng(0).random((5, 6, 7, 3))
    turned = channels_first(images, "last")
    assert turned.shape == (5, 3, 6, 7)
    assert turned.flags.c_contiguous
    assert turned[4, 2, 1, 3] == images[4, 1, 3, 2]


def test_a_file_with_channels_last_trains_the_model_of_one_with_channels_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "last.npz", image=images, y=Y)
    np.savez(tmp_path / "first.npz", image=np.moveaxis(images, -1, 1), y=Y)
    last, first = (
        files(0, 2, path=str(tmp_path / name), targets={"y": "binary"}) for name in ("last.npz", "first.npz")
    )
    assert first.train.features.shape == (16, 3, 12, 12)
    assert torch.equal(last.train.features, first.train.features)
    assert torch.equal(last.test.features, first.test.features)
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert "last.npz, column 'image': images of shape (12, 12, 3) are turned" in said[0]


def test_grey_images_get_the_axis_that_models_of_images_need(tmp_path: Path) -> None:
    np.savez(tmp_path / "grey.npz", image=np.random.default_rng(0).random((20, 12, 12)), y=Y)
    path = str(tmp_path / "grey.npz")
    plain = files(0, 2, path=path, targets={"y": "binary"})
    with pytest.raises(ConfigError, match=r"grey images need an axis .* \(data\.channels = 'none' adds it\)"):
        build_model("lenet", {}, tuple(plain.train.features.shape[1:]), plain.tasks, 0)
    grey = files(0, 2, path=path, targets={"y": "binary"}, channels="none")
    assert grey.train.features.shape == (16, 1, 12, 12)
    assert torch.equal(grey.train.features[:, 0], plain.train.features)
    build_model("lenet", {}, (1, 12, 12), grey.tasks, 0)


def test_what_does_not_fit_the_shape_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "table.npz", a=np.ones((20, 3)), b=np.arange(20), y=Y)
    options = {"path": str(tmp_path / "table.npz"), "targets": {"y": "binary"}}
    with pytest.raises(ConfigError, match=r"data\.channels = 'last': .*column 'a' has examples of shape \(3,\)"):
        files(0, 2, **options, features=["a"], channels="last")
    with pytest.raises(ConfigError, match=r"data\.channels = 'first': is for a column of images, not for 2 columns"):
        files(0, 2, **options, channels="first")
