"""FedProx's synthetic(alpha, beta): every client has a model and an input distribution of its own."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch

from fedmtl.components import Param
from fedmtl.data.federated import Examples
from fedmtl.data.pool import Pool
from fedmtl.randomness import numpy_generator
from fedmtl.tasks import Task

TEST_EVERY = 10
_BLOCK = 1024


def synthetic(
    seed: int,
    clients: int,
    *,
    synthetic_alpha: Annotated[
        float, Param("variance between the clients' models; 0 for models of one mean", ge=0, source="paper")
    ] = 1.0,
    synthetic_beta: Annotated[
        float, Param("variance between the clients' inputs; 0 for inputs of one mean", ge=0, source="paper")
    ] = 1.0,
    synthetic_features: Annotated[int, Param("features of an example", ge=1, source="paper")] = 60,
    synthetic_classes: Annotated[int, Param("classes", ge=2, source="paper")] = 10,
    synthetic_least: Annotated[int, Param("examples of the smallest client", ge=2, source="authors' code")] = 50,
    synthetic_log_mean: Annotated[
        float, Param("mean of the logarithm of a client's further examples", le=20, source="authors' code")
    ] = 4.0,
    synthetic_log_sigma: Annotated[
        float, Param("deviation of the logarithm of a client's further examples", ge=0, le=5, source="authors' code")
    ] = 2.0,
) -> Pool:
    """A classification whose model and inputs differ from client to client (arXiv 1812.06127, section 5.1).

    For client k: ``u_k ~ N(0, alpha)``, ``W_k, b_k ~ N(u_k, 1)``, ``B_k ~ N(0, beta)``, ``v_k ~ N(B_k, 1)`` by feature;
    ``x ~ N(v_k, Sigma)`` with ``Sigma_jj = j^-1.2``, and ``y = argmax(W_k x + b_k)``. A client has `synthetic_least`
    examples and a lognormal number more; every tenth example of all is for testing.
    """
    sizes = numpy_generator(seed, "synthetic sizes").lognormal(synthetic_log_mean, synthetic_log_sigma, size=clients)
    ends = np.cumsum(sizes.astype(np.int64) + synthetic_least)
    features = np.empty((ends[-1], synthetic_features), dtype=np.float32)
    labels = np.empty(ends[-1], dtype=np.int64)
    for first in range(0, clients, _BLOCK):
        cuts = np.concatenate([ends[first - 1 : first] if first else [0], ends[first : first + _BLOCK]])
        block = slice(int(cuts[0]), int(cuts[-1]))
        rng = numpy_generator(seed, "synthetic", first)
        _fill(features[block], labels[block], np.diff(cuts), synthetic_alpha, synthetic_beta, synthetic_classes, rng)
    client = np.repeat(np.arange(clients), np.diff(ends, prepend=0))
    tests = np.arange(ends[-1]) % TEST_EVERY == 0
    task = Task("label", "classification", outputs=synthetic_classes)
    train, test = (Examples(*_tensors(features[part], labels[part])) for part in (~tests, tests))
    return Pool((task,), train, test, natural=client[~tests])


def _fill(
    features: np.ndarray,
    labels: np.ndarray,
    sizes: np.ndarray,
    alpha: float,
    beta: float,
    classes: int,
    rng: np.random.Generator,
) -> None:
    """Draw the examples of a block of clients in place."""
    clients, width = len(sizes), features.shape[1]
    u, B = (np.sqrt(variance) * rng.standard_normal((clients, 1)) for variance in (alpha, beta))
    W = rng.standard_normal((clients, width, classes), dtype=np.float32) + u[:, :, None].astype(np.float32)
    b = (u + rng.standard_normal((clients, classes))).astype(np.float32)
    v = (B + rng.standard_normal((clients, width))).astype(np.float32)
    deviation = np.arange(1, width + 1, dtype=np.float32) ** np.float32(-0.6)
    rng.standard_normal(out=features, dtype=np.float32)
    features *= deviation
    features += np.repeat(v, sizes, axis=0)
    stop = 0
    for client, size in enumerate(sizes):
        start, stop = stop, stop + int(size)
        labels[start:stop] = np.argmax(features[start:stop] @ W[client] + b[client], axis=1)


def _tensors(features: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    return torch.from_numpy(features), (torch.from_numpy(labels),)
