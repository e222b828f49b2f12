"""Two handwritten digits on one canvas: which is left, and which is right."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch

from fedmtl.components import Param
from fedmtl.data.digits import TRAIN_EXAMPLES, load_images, split_order
from fedmtl.data.federated import Examples
from fedmtl.data.pool import Pool
from fedmtl.randomness import numpy_generator
from fedmtl.tasks import Task

TASKS = (Task("left", "classification", outputs=10), Task("right", "classification", outputs=10))


def two_digits(
    seed: int,
    clients: int,
    *,
    canvas: Annotated[
        Literal["8x12", "12x12"],
        Param("rows x columns: side by side with 4 common columns, or in opposite corners", source="paper"),
    ] = "8x12",
    pairs: Annotated[int, Param("training images to compose", ge=1)] = 5000,
    test_pairs: Annotated[int, Param("test images to compose", ge=1)] = 1000,
) -> Pool:
    """Pairs of real handwritten digits on one canvas: left digit and right digit, ten classes each.

    Features have shape [n, 1, rows, 12]. Where the digits overlap the brighter pixel counts. Training pairs are
    composed of the 1297 training images of `digits`, test pairs of the other 500.
    """
    images, labels = load_images()
    order = split_order(seed)
    rows = 8 if canvas == "8x12" else 12
    examples = []
    for part, chosen, count in (
        ("train", order[:TRAIN_EXAMPLES], pairs),
        ("test", order[TRAIN_EXAMPLES:], test_pairs),
    ):
        rng = numpy_generator(seed, f"two-digits {part}")
        left, right = (rng.choice(chosen, size=count) for _ in range(2))
        features = torch.from_numpy(_paste(images[left], images[right], rows))
        examples.append(Examples(features, (torch.from_numpy(labels[left]), torch.from_numpy(labels[right]))))
    return Pool(TASKS, examples[0], examples[1])


def _paste(left: np.ndarray, right: np.ndarray, rows: int) -> np.ndarray:
    """Left images in the upper left corner, right ones in the lower right: float32 of shape [n, 1, rows, 12]."""
    canvas = np.zeros((len(left), 1, rows, 12), dtype=np.float32)
    canvas[:, 0, :8, :8] = left
    corner = canvas[:, 0, rows - 8 :, 4:]
    np.maximum(corner, right, out=corner)
    return canvas
