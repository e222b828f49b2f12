"""Handwritten digits with four tasks of different kinds and scales."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from fedmtl.components import Param
from fedmtl.data.federated import Examples
from fedmtl.data.pool import Pool
from fedmtl.randomness import numpy_generator
from fedmtl.tasks import Task

TRAIN_EXAMPLES = 1297
TASKS = (
    Task("digit", "classification", outputs=10),
    Task("parity", "binary", loss_factor=0.05),
    Task("ink", "regression", loss="squared_error", loss_factor=30.0),
    Task("asymmetry", "regression", loss="absolute_error", loss_factor=5.0),
)


def load_images() -> tuple[np.ndarray, np.ndarray]:
    """The 1797 images inside scikit-learn, float32 in [0, 1] of shape [1797, 8, 8], and their digits, int64.

    Its file is read without scikit-learn itself, which takes a second to load, at the start of every run.
    """
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    file = Path(found.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    with gzip.open(file, "rt", encoding="utf-8") as rows:
        table = np.loadtxt(rows, delimiter=",")
    return (table[:, :-1].reshape(-1, 8, 8) / 16.0).astype(np.float32), table[:, -1].astype(np.int64)


def split_order(seed: int) -> np.ndarray:
    """A permutation of the 1797 images; the first 1297 are for training, the others for testing."""
    return numpy_generator(seed, "digits split").permutation(1797)


def digits(
    seed: int,
    clients: int,
    *,
    target_noise: Annotated[
        float, Param("noise of both regression targets, standard deviations of the target", ge=0, source="paper")
    ] = 0.5,
) -> Pool:
    """Real handwritten digits, 8x8: digit, parity, ink and asymmetry (1297 for training, 500 for testing).

    Features have shape [n, 1, 8, 8]. `ink` is the sum of the upper half's pixels, `asymmetry` that of the left half
    minus that of the right half; both are standardised with the training images' mean and deviation, and then disturbed
    by Gaussian noise, so that no model reaches an error near 0 (with noise s, the best mean squared error is s^2).
    """
    images, labels = load_images()
    order = split_order(seed)
    images, labels = images[order], labels[order]
    rng = numpy_generator(seed, "digits noise")
    ink = _brightness(images[:, :4])
    asymmetry = _brightness(images[:, :, :4]) - _brightness(images[:, :, 4:])
    noisy = [_standardised(target) + target_noise * rng.standard_normal(len(target)) for target in (ink, asymmetry)]
    columns = [labels, (labels % 2).astype(np.float32), *(target.astype(np.float32) for target in noisy)]
    features = torch.from_numpy(images[:, None])
    targets = [torch.from_numpy(column) for column in columns]
    cut = TRAIN_EXAMPLES
    return Pool(
        TASKS,
        Examples(features[:cut].clone(), tuple(target[:cut].clone() for target in targets)),
        Examples(features[cut:].clone(), tuple(target[cut:].clone() for target in targets)),
    )


def _brightness(images: np.ndarray) -> np.ndarray:
    return np.asarray(images.sum(axis=(1, 2), dtype=np.float64))


def _standardised(target: np.ndarray) -> np.ndarray:
    train = target[:TRAIN_EXAMPLES]
    return np.asarray((target - train.mean()) / train.std())
