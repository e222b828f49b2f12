"""NTKMTL and NTKMTL-SR against their definitions, with every gradient found by itself."""

import math
from itertools import pairwise

import pytest
import torch

from fedmtl.balancing.weights import chunk_sizes, gram


def chunks_of(batch: int, chunks: int) -> list[slice]:
    stops = torch.tensor([0, *chunk_sizes(batch, chunks)]).cumsum(0).tolist()
    return [slice(start, stop) for start, stop in pairwise(stops)]


def omega(lam: torch.Tensor, exponent: float = 0.5) -> torch.Tensor:
    """The paper's formula, without guards."""
    return (lam.mean() / lam) ** exponent


SHARING = ["mlp", "lenet", "resnet18", "lstm"]


@pytest.mark.parametrize("model", SHARING)
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_ntkmtl_weighs_by_squared_gradient_norms(make_step, model, exponent):
    step = make_step(model)
    lam = step.shared_gradients().square().sum(1)
    result = step.run("ntkmtl", exponent=exponent, w_max=0)
    torch.testing.assert_close(result.kernel_sizes, lam, rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(result.weights, omega(lam, exponent), rtol=1e-3, atol=0)


def test_ntkmtl_makes_every_task_contribute_the_same_length(make_step):
    step = make_step()
    result = step.run("ntkmtl", w_max=0)
    gradients = step.shared_gradients()
    lengths = (result.weights[:, None] * gradients).norm(dim=1)
    rms = gradients.square().sum(1).mean().sqrt()
    torch.testing.assert_close(lengths, rms.expand(4), rtol=1e-3, atol=0)


@pytest.mark.parametrize("model", SHARING)
@pytest.mark.parametrize("statistic", ["top_eig", "trace", "denoised"])
def test_ntkmtl_with_chunks_sizes_the_kernel_of_chunk_gradients(make_step, model, statistic):
    step = make_step(model, batch=22)
    per_chunk = torch.stack([step.shared_gradients(rows) for rows in chunks_of(22, 4)], dim=1).double()
    kernels = gram(per_chunk)
    if statistic == "top_eig":
        lam = torch.linalg.eigvalsh(kernels)[:, -1]
    elif statistic == "trace":
        lam = kernels.diagonal(dim1=1, dim2=2).mean(1)
    else:
        lam = kernels[:, ~torch.eye(4, dtype=torch.bool)].mean(1)
    result = step.run("ntkmtl", chunks=4, statistic=statistic, w_max=0)
    # A de-noised size is a small difference of large sums.
    scale = kernels.diagonal(dim1=1, dim2=2).mean(1)
    assert ((result.kernel_sizes.double() - lam).abs() <= 1e-4 * scale).all()
    assert (result.kernel_sizes <= scale * 4.0004).all()


@pytest.mark.parametrize("batch", [20, 22, 3])
@pytest.mark.parametrize("model", ["linear", *SHARING])
def test_one_pass_finds_the_eigenvalue_that_a_pass_for_each_chunk_finds(make_step, model, batch):
    step = make_step(model, batch=batch)
    per_chunk = torch.stack([step.representation_gradients(rows) for rows in chunks_of(batch, 4)], dim=1)
    kernels = gram(per_chunk)
    n = kernels.shape[1]
    off_diagonal = kernels[:, ~torch.eye(n, dtype=torch.bool)]
    assert (off_diagonal.abs() < 1e-8).all()
    result = step.run("ntkmtl-sr", chunks=4)
    torch.testing.assert_close(result.kernel_sizes, torch.linalg.eigvalsh(kernels)[:, -1], rtol=1e-5, atol=0)
    result = step.run("ntkmtl-sr", chunks=4, statistic="trace")
    torch.testing.assert_close(result.kernel_sizes, kernels.diagonal(dim1=1, dim2=2).mean(1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("exponent", [0.5, 0.75])
def test_sr_weighs_by_its_sizes_within_the_clip(make_step, exponent):
    step = make_step()
    free = step.run("ntkmtl-sr", exponent=exponent, w_max=0)
    torch.testing.assert_close(free.weights, omega(free.kernel_sizes, exponent), rtol=1e-4, atol=0)
    bounded = step.run("ntkmtl-sr", exponent=exponent, w_max=3)
    middle = free.weights.sort().values[1]
    assert free.weights.max() > 3 * middle  # the bound matters here
    torch.testing.assert_close(bounded.weights, free.weights.clamp(middle / 3, middle * 3), rtol=1e-5, atol=0)


def test_heads_are_weighted_in_sr_and_not_in_ntkmtl_unless_told_otherwise(make_step):
    step = make_step()
    own = step.head_gradients()[1]
    full, sr = step.run("ntkmtl"), step.run("ntkmtl-sr")
    flat = [torch.cat([g.reshape(-1) for g in result.heads[1]]) for result in (full, sr)]
    torch.testing.assert_close(flat[0], own, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(flat[1], own * sr.weights[1], rtol=1e-4, atol=1e-6)
    assert abs(sr.weights[1].item() - 1) > 0.5


@pytest.mark.parametrize("name", ["ntkmtl", "ntkmtl-sr"])
def test_the_servers_factors_multiply_the_weights(make_step, name):
    step = make_step()
    factors = (2.0, 0.5, 0.0, 1.0)
    plain, told = step.run(name), step.run(name, factors)
    torch.testing.assert_close(told.weights, plain.weights * torch.tensor(factors))
    assert torch.equal(told.kernel_sizes, plain.kernel_sizes)


def test_a_model_that_shares_nothing_has_no_kernel_but_a_representation(make_step):
    step = make_step("linear")
    full = step.run("ntkmtl")
    assert full.shared in ([], ())
    assert full.weights.tolist() == [1.0] * 4
    assert full.kernel_sizes.tolist() == [0.0] * 4
    sr = step.run("ntkmtl-sr", chunks=1, w_max=0)
    lam = step.representation_gradients().square().sum(1)
    torch.testing.assert_close(sr.kernel_sizes, lam, rtol=1e-4, atol=0)
    torch.testing.assert_close(sr.weights, omega(lam), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["ntkmtl", "ntkmtl-sr"])
def test_the_scale_of_one_loss_does_not_matter_to_the_direction(make_step, name):
    step = make_step()
    before = torch.cat([g.reshape(-1) for g in step.run(name, w_max=0).shared])
    task = step.network.tasks[3]
    object.__setattr__(task, "loss_factor", task.loss_factor * 40)
    try:
        after = torch.cat([g.reshape(-1) for g in step.run(name, w_max=0).shared])
    finally:
        object.__setattr__(task, "loss_factor", task.loss_factor / 40)
    assert torch.cosine_similarity(before, after, dim=0).item() == pytest.approx(1.0, abs=1e-5)


def test_training_with_sr_learns_what_the_loudest_loss_drowns(make_step):
    """The digit task beside one that is 30 times as loud: plain descent learns nothing of it in the same steps."""

    def trained(name: str) -> list[float]:
        step = make_step(tasks=[0, 2], batch=200)
        parameters = list(step.model.parameters())
        for _ in range(300):
            result = step.run(name)
            gradients = [*result.shared, *(g for head in result.heads for g in head)]
            with torch.no_grad():
                torch._foreach_add_(parameters, gradients, alpha=-0.01)
        return [loss.item() for loss in step.losses()]

    equal, balanced = trained("equal"), trained("ntkmtl-sr")
    assert balanced[0] < 0.5 * equal[0]
    assert all(math.isfinite(loss) for loss in balanced)
