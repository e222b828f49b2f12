"""NTKMTL's weights: golden values, bounds, and kernels of any size.

Long because each bound has its own example.
"""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from fedmtl.balancing.weights import (
    balanced_weights,
    chunk_sizes,
    gram,
    head_chunk_norms,
    kernel_size,
    representation_sizes,
)

# Everything is float64, so that tolerances show the mathematics and not the arithmetic.
TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}


def jacobian(seed: int, tasks: int, decades: float = 3.0, parameters: int = 12) -> Tensor:
    """Random gradients, a row per task, with norms spread over so many decades."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, parameters, generator=generator, dtype=torch.float64)
    scales = 10 ** (decades * (torch.rand(tasks, generator=generator, dtype=torch.float64) - 0.5))
    return rows * scales[:, None]


def ntkmtl(rows: Tensor, exponent: float = 0.5) -> tuple[Tensor, Tensor]:
    """Weights and shared gradient of NTKMTL with one chunk and no clip."""
    lam = kernel_size(gram(rows[:, None, :]), "top_eig")
    omega = balanced_weights(lam, exponent, math.inf)
    return omega, omega @ rows


def imtl_g(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Weights that sum to 1 and give the direction equal projections on all unit gradients."""
    m = rows @ rows.T
    v = torch.linalg.pinv(m, hermitian=True) @ m.diagonal().sqrt()
    weights = v / v.sum()
    return weights, weights @ rows


def exact_nash(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The closed form for two tasks."""
    norms = rows.norm(dim=1)
    cosine = rows[0] @ rows[1] / norms.prod()
    weights = 1 / (norms * (1 + cosine).sqrt())
    return weights, weights @ rows


def mgda(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The closed form for two tasks."""
    g1, g2 = rows
    first = (((g2 - g1) @ g2) / (g1 - g2).square().sum()).clamp(0, 1)
    weights = torch.stack([first, 1 - first])
    return weights, weights @ rows


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()))


def approx(*values: float) -> object:
    return pytest.approx(values, abs=5e-7)  # the golden vectors have six decimals


seeds = st.integers(0, 10_000)
tasks = st.integers(1, 40)


def test_golden_two_tasks():
    rows = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)
    omega, d = ntkmtl(rows)
    assert omega.tolist() == approx(0.721110, 3.605551)
    assert d.tolist() == approx(5.768882, 2.884441)
    weights, imtl = imtl_g(rows)
    assert weights.tolist() == approx(1 / 6, 5 / 6)
    assert imtl.tolist() == approx(4 / 3, 2 / 3)
    weights, nash = exact_nash(rows)
    assert weights.tolist() == approx(0.158114, 0.790569)
    assert nash.tolist() == approx(1.264911, 0.632456)
    assert nash.square().sum().item() == pytest.approx(2.0)
    units = rows / rows.norm(dim=1, keepdim=True)
    for direction in (d, imtl, nash):
        assert cosine(direction, units.sum(0)) == pytest.approx(1.0)
    assert mgda(rows)[0].tolist() == approx(0.0, 1.0)


def test_golden_three_tasks():
    rows = torch.tensor([[1.0, 0, 0], [0, 2, 0], [1, 1, 1]], dtype=torch.float64)
    omega, d = ntkmtl(rows)
    assert omega.tolist() == approx(1.632993, 0.816497, 0.942809)
    assert d.tolist() == approx(2.575802, 2.575802, 0.942809)


@given(seed=seeds)
def test_for_two_tasks_imtl_g_and_exact_nash_have_the_same_direction(seed):
    rows = jacobian(seed, 2)
    assume(abs(cosine(*rows)) < 0.99)  # their linear systems become singular where the gradients are parallel
    _, d = ntkmtl(rows)
    assert cosine(d, imtl_g(rows)[1]) == pytest.approx(1.0, abs=1e-6)
    assert cosine(d, exact_nash(rows)[1]) == pytest.approx(1.0, abs=1e-6)


@given(seed=seeds, tasks=tasks)
def test_db_mtl_on_log_losses_without_memory_has_the_same_direction(seed, tasks):
    rows = jacobian(seed, tasks)
    losses = jacobian(seed + 1, tasks)[:, 0].abs() + 0.01
    log_gradients = rows / (losses[:, None] + 1e-8)
    norms = log_gradients.norm(dim=1)
    db_mtl = (norms.max() / norms) @ log_gradients
    assert cosine(ntkmtl(rows)[1], db_mtl) == pytest.approx(1.0, abs=1e-6)


@given(seed=seeds, tasks=tasks)
def test_weighted_gradients_have_equal_norms_the_root_mean_square(seed, tasks):
    rows = jacobian(seed, tasks)
    omega, _ = ntkmtl(rows)
    norms = (omega[:, None] * rows).norm(dim=1)
    torch.testing.assert_close(norms, rows.norm(dim=1).square().mean().sqrt().expand(tasks), **TOLERANCE)


@given(seed=seeds, tasks=tasks)
def test_exponent_zero_gives_equal_weights(seed, tasks):
    omega, d = ntkmtl(jacobian(seed, tasks), exponent=0.0)
    assert torch.equal(omega, torch.ones(tasks, dtype=torch.float64))
    torch.testing.assert_close(d, jacobian(seed, tasks).sum(0), **TOLERANCE)


@given(seed=seeds)
def test_exponent_one_on_orthogonal_gradients_is_parallel_to_mgda(seed):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(6, 2, generator=generator, dtype=torch.float64)).Q.T
    rows = basis * jacobian(seed, 2)[:, :1]
    assert cosine(ntkmtl(rows, exponent=1.0)[1], mgda(rows)[1]) == pytest.approx(1.0, abs=1e-6)


@given(seed=seeds, tasks=tasks, task=st.integers(0, 39), factor=st.floats(1e-3, 1e3))
def test_scaling_a_loss_leaves_the_direction_and_scaling_all_leaves_the_weights(seed, tasks, task, factor):
    rows = jacobian(seed, tasks)
    omega, d = ntkmtl(rows)
    one = rows.clone()
    one[task % tasks] *= factor
    assert cosine(ntkmtl(one)[1], d) == pytest.approx(1.0, abs=1e-6)
    # eps = 1e-12 beside lambdas of 1e-9 at the least.
    torch.testing.assert_close(ntkmtl(rows * factor)[0], omega, rtol=1e-3, atol=0)


@given(seed=seeds, tasks=tasks)
def test_permuting_tasks_permutes_weights_and_rotating_gradients_leaves_them(seed, tasks):
    rows = jacobian(seed, tasks)
    omega, _ = ntkmtl(rows)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(tasks, generator=generator)
    torch.testing.assert_close(ntkmtl(rows[order])[0], omega[order], **TOLERANCE)
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q
    torch.testing.assert_close(ntkmtl(rows @ rotation)[0], omega, **TOLERANCE)


@given(lam=st.floats(0, 1e30), exponent=st.floats(0, 2), w_max=st.sampled_from([1.0, 50.0, math.inf]))
def test_a_single_task_has_weight_one_to_the_bit(lam, exponent, w_max):
    single = torch.tensor([lam], dtype=torch.float64)
    assert balanced_weights(single, exponent, w_max).tolist() == [1.0]
    assert balanced_weights(single[None], exponent, w_max).tolist() == [[1.0]]


@given(seed=seeds, chunks=st.integers(1, 8))
def test_the_kernel_is_positive_semi_definite_and_its_sizes_are_ordered(seed, chunks):
    kernel = gram(jacobian(seed, chunks))
    eigenvalues = torch.linalg.eigvalsh(kernel)
    top, trace = kernel_size(kernel, "top_eig").item(), kernel_size(kernel, "trace").item()
    assert eigenvalues.min() >= -1e-12 * eigenvalues.max()
    assert trace <= top * (1 + 1e-12)
    assert top <= trace * chunks * (1 + 1e-12)
    assert top == pytest.approx(eigenvalues.max().item())


@given(seed=seeds)
@pytest.mark.parametrize("statistic", ["top_eig", "trace", "denoised"])
def test_one_chunk_leaves_the_squared_norm(seed, statistic):
    rows = jacobian(seed, 5)
    sizes = kernel_size(gram(rows[:, None, :]), statistic)
    torch.testing.assert_close(sizes, rows.square().sum(1), **TOLERANCE)


@given(seed=seeds, chunks=st.integers(2, 8))
def test_the_denoised_size_is_the_mean_off_diagonal_entry(seed, chunks):
    rows = jacobian(seed, chunks, decades=1.0)
    kernel = gram(rows)
    off_diagonal = kernel[~torch.eye(chunks, dtype=torch.bool)].mean()
    scale = kernel.abs().max().item()
    size = kernel_size(kernel, "denoised")
    torch.testing.assert_close(size, off_diagonal, rtol=0, atol=1e-12 * scale)
    from_sums = (rows.sum(0).square().sum() - rows.square().sum()) / (chunks * (chunks - 1))
    torch.testing.assert_close(size, from_sums, rtol=0, atol=1e-12 * scale)


@given(seed=seeds, chunks=st.integers(2, 8))
def test_identical_chunks_have_no_noise(seed, chunks):
    row = jacobian(seed, 1)
    kernel = gram(row.expand(chunks, -1))
    torch.testing.assert_close(kernel_size(kernel, "denoised"), row.square().sum(), **TOLERANCE)


def test_a_negative_denoised_size_counts_as_no_gradient():
    kernel = gram(torch.tensor([[1.0, 0.0], [-1.0, 0.1]], dtype=torch.float64))
    size = kernel_size(kernel, "denoised")
    assert size < 0
    omega = balanced_weights(torch.stack([size, torch.tensor(4.0), torch.tensor(4.0)]).double())
    assert torch.equal(omega, balanced_weights(torch.tensor([0.0, 4.0, 4.0], dtype=torch.float64)))


@pytest.mark.parametrize("statistic", ["top_eig", "trace", "denoised"])
@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_a_fault_in_a_kernel_shows_in_its_size_and_in_no_other(statistic, fault):
    kernels = gram(jacobian(0, 6).view(2, 3, 12))
    sound = kernel_size(kernels, statistic)
    kernels[0, 1] = fault
    kernels[0, :, 1] = fault
    sizes = kernel_size(kernels, statistic)
    assert not sizes[0].isfinite()
    assert sizes[1] == sound[1]


values = st.one_of(st.floats(0, 1e8), st.just(0.0), st.just(math.nan), st.just(math.inf), st.just(-1.0))
lambdas = st.lists(values, min_size=1, max_size=12)
exponents = st.sampled_from([0.0, 0.5, 0.75, 1.0, 30.0, 1e4])
bounds = st.sampled_from([1.0, 2.0, 50.0, math.inf])


@given(lam=lambdas, exponent=exponents, w_max=bounds)
def test_weights_are_finite_and_inside_the_clip_whatever_the_gradients(lam, exponent, w_max):
    omega = balanced_weights(torch.tensor(lam, dtype=torch.float64), exponent, w_max)
    assert omega.float().isfinite().all()
    assert (omega >= 0).all()
    if math.isinf(w_max):
        return
    live = [weight for weight, value in zip(omega.tolist(), lam, strict=True) if 1e-12 < value < math.inf]
    middle = sorted(live)[(len(live) - 1) // 2] if live else 1.0
    assert omega.max() <= middle * w_max * (1 + 1e-12)
    assert omega.min() >= middle / w_max * (1 - 1e-12)


@given(lam=lambdas, exponent=exponents, w_max=bounds)
def test_many_steps_at_once_give_the_weights_of_each(lam, exponent, w_max):
    single = torch.tensor(lam, dtype=torch.float64)
    stacked = balanced_weights(torch.stack([single, single.flip(0)]), exponent, w_max)
    torch.testing.assert_close(stacked[0], balanced_weights(single, exponent, w_max), rtol=1e-9, atol=0)
    torch.testing.assert_close(stacked[1].flip(0), stacked[0], rtol=1e-9, atol=0)


@given(lam=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=8), fault=st.sampled_from([math.nan, math.inf, 0.0]))
def test_a_task_without_a_gradient_only_leaves_the_mean(lam, fault):
    """The others keep the ratios they have among themselves: nothing raises or lowers one of them alone."""
    sound = torch.tensor(lam, dtype=torch.float64)
    omega = balanced_weights(torch.cat([sound, torch.tensor([fault], dtype=torch.float64)]), w_max=1e9)
    share = math.sqrt(len(lam) / (len(lam) + 1))
    torch.testing.assert_close(omega[:-1], share * balanced_weights(sound, w_max=1e9), rtol=1e-6, atol=0)


@given(size=st.floats(1e-6, 1e6), dead=st.integers(1, 10))
def test_many_stopped_tasks_do_not_raise_the_one_that_learns(size, dead):
    omega = balanced_weights(torch.tensor([size] + [0.0] * dead, dtype=torch.float64))
    assert omega[0].item() == pytest.approx((1 + dead) ** -0.5, rel=1e-5)
    assert omega[1].item() == pytest.approx(50 * omega[0].item())


def test_no_gradients_at_all_give_ones():
    assert balanced_weights(torch.zeros(4)).tolist() == [1.0] * 4
    assert balanced_weights(torch.zeros(2, 4)).tolist() == [[1.0] * 4] * 2


@given(batch=st.integers(1, 100), chunks=st.integers(1, 12))
def test_chunks_are_as_even_as_can_be_and_never_empty(batch, chunks):
    sizes = chunk_sizes(batch, chunks)
    assert sum(sizes) == batch
    assert len(sizes) == min(batch, chunks)
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@given(batch=st.integers(1, 30), chunks=st.integers(1, 8), seed=seeds)
def test_the_representation_size_is_the_largest_chunk_norm(batch, chunks, seed):
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(3, batch, 5, generator=generator, dtype=torch.float64)
    parts = gradients.split(chunk_sizes(batch, chunks), dim=1)
    norms = torch.stack([((batch / part.shape[1]) * part).square().sum((1, 2)) for part in parts])
    torch.testing.assert_close(representation_sizes(gradients, chunks, "top_eig"), norms.amax(0), **TOLERANCE)
    torch.testing.assert_close(representation_sizes(gradients, chunks, "trace"), norms.mean(0), **TOLERANCE)


@given(batch=st.integers(1, 30), chunks=st.integers(1, 8), seed=seeds, outputs=st.lists(st.integers(1, 12), min_size=1))
def test_norms_from_the_heads_are_those_of_their_gradients(batch, chunks, seed, outputs):
    generator = torch.Generator().manual_seed(seed)
    slopes = torch.randn(batch, sum(outputs), generator=generator, dtype=torch.float64)
    weights = torch.randn(sum(outputs), 7, generator=generator, dtype=torch.float64)
    parts = zip(slopes.split(outputs, 1), weights.split(outputs), strict=True)
    gradients = torch.stack([slope @ weight for slope, weight in parts])
    norms = torch.tensor(head_chunk_norms(slopes, weights, tuple(outputs), chunks), dtype=torch.float64)
    # The mean of a difference of products as large as the largest of them.
    close = {"rtol": 1e-9, "atol": 1e-12 * norms.max().item()}
    torch.testing.assert_close(norms.amax(0), representation_sizes(gradients, chunks, "top_eig"), **close)
    torch.testing.assert_close(norms.mean(0), representation_sizes(gradients, chunks, "trace"), **close)
