"""Kernels against explicit Jacobians, and spectra with and without the matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.ntk import (
    Kernels,
    Rows,
    cosines,
    dense_spectrum,
    free_spectrum,
    group_alignment,
    kernel_alignment,
    mean_gradient_products,
)
from fedmtl.ntk.spectrum import FLOOR, hutchinson, top_eigenpairs
from fedmtl.ntk.tangents import Parameters
from fedmtl.tasks import Task

EXACT = {"rtol": 1e-9, "atol": 1e-12}
"""Sums of the same float64 products in another order."""

Made = Callable[..., tuple[Any, Any]]
Jacobian = Callable[..., torch.Tensor]
Tasks = tuple[Task, ...]


def every_kernel(kernels: Kernels) -> list[Rows]:
    tasks = range(len(kernels.tasks))
    return [*map(kernels.outputs, (*tasks, None)), *map(kernels.losses, (*tasks, None))]


@pytest.mark.parametrize("parameters", ["shared", "all"])
def test_every_kernel_is_the_product_of_explicit_jacobians(
    kind: str, parameters: Parameters, made: Made, jacobian: Jacobian, tasks: Tasks
) -> None:
    model, examples = made(kind)
    kernels = Kernels(model, tasks, examples, parameters=parameters)
    for rows in every_kernel(kernels):
        J = jacobian(model, examples.features, rows, parameters)
        assert torch.allclose(kernels.gram(rows), J @ J.t(), **EXACT)
        assert J.shape[1] == kernels.tangents.size


def test_rows_of_losses_are_the_gradients_of_single_losses(made: Made, jacobian: Jacobian, tasks: Tasks) -> None:
    model, examples = made("mlp")
    kernels = Kernels(model, tasks, examples)
    twin = kernels.tangents._model.requires_grad_(True)
    outputs = twin(examples.features.double())
    for index, task in enumerate(tasks):
        target = examples.targets[index]
        target = target.double() if target.is_floating_point() else target
        J = jacobian(model, examples.features, kernels.losses(index), "shared")
        for row, loss in zip(J, task.example_losses(outputs[index], target), strict=True):
            gradient = torch.autograd.grad(loss, list(twin.backbone.parameters()), retain_graph=True)
            assert torch.allclose(row, torch.cat([g.flatten() for g in gradient]), **EXACT)


@pytest.mark.parametrize("memory", [1, 4000, 20_000, 1 << 30])
def test_blocks_of_any_size_give_the_same_kernel(memory: int, made: Made, tasks: Tasks) -> None:
    model, examples = made("tanh")
    whole, cut = Kernels(model, tasks, examples), Kernels(model, tasks, examples, memory=memory)
    rows = whole.outputs(0)
    assert torch.allclose(whole.gram(rows), cut.tangents.gram(rows), **EXACT)
    assert torch.allclose(whole.gram(rows)[:5, 9:], cut.tangents.gram(rows.part(slice(5)), rows.part(slice(9, None))))


@pytest.mark.parametrize("parameters", ["shared", "all"])
def test_products_without_a_matrix_are_products_with_it(
    kind: str, parameters: Parameters, made: Made, tasks: Tasks
) -> None:
    model, examples = made(kind)
    kernels = Kernels(model, tasks, examples, parameters=parameters)
    for rows in every_kernel(kernels):
        vector = torch.randn(len(rows), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        assert torch.allclose(kernels.tangents.apply(rows, rows, vector), kernels.gram(rows) @ vector, **EXACT)


def test_kernels_are_symmetric_and_positive_semi_definite(kind: str, made: Made, tasks: Tasks) -> None:
    model, examples = made(kind)
    kernels = Kernels(model, tasks, examples)
    for rows in every_kernel(kernels):
        kernel = kernels.gram(rows)
        assert torch.allclose(kernel, kernel.t(), **EXACT)
        # Rounding leaves eigenvalues of a singular kernel within about 1e-15 times its size of zero.
        assert torch.linalg.eigvalsh(kernel)[0] >= -1e-13 * kernel.trace()


def test_a_linear_model_shares_nothing(made: Made, tasks: Tasks) -> None:
    model, examples = made("linear")
    shared, whole = (Kernels(model, tasks, examples, parameters=p) for p in ("shared", "all"))
    spectrum = shared.spectrum(shared.losses(0))
    assert spectrum.trace == 0.0
    assert math.isnan(spectrum.condition)
    assert math.isnan(spectrum.effective_rank)
    x = examples.features.double()
    assert torch.allclose(whole.gram(whole.outputs(1)), x @ x.t() + 1.0, **EXACT)
    assert torch.isnan(kernel_alignment(shared.gram(shared.losses(0))[None])).all()


def test_measuring_leaves_the_model_as_it_is(made: Made, tasks: Tasks) -> None:
    model, examples = made("mlp")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Kernels(model, tasks, examples).gradient_cosines()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


@given(size=st.integers(2, 12), rank=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_spectrum_says_what_the_matrix_is(size: int, rank: int, seed: int) -> None:
    J = torch.randn(size, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    spectrum = dense_spectrum(J @ J.t())
    values = torch.linalg.svdvals(J) ** 2
    assert torch.allclose(spectrum.eigenvalues[: len(values)], values, rtol=1e-9, atol=1e-9 * spectrum.top)
    assert math.isclose(spectrum.trace, float(values.sum()), rel_tol=1e-9)
    assert 1 - 1e-9 <= spectrum.effective_rank <= min(size, rank) + 1e-9
    assert spectrum.trace / size <= spectrum.top * (1 + 1e-9) <= spectrum.trace * (1 + 2e-9)
    if rank < size:
        assert math.isclose(spectrum.condition, 1 / FLOOR)
    else:
        assert 1 <= spectrum.condition <= 1 / FLOOR


def test_without_the_matrix_the_largest_eigenvalues_are_the_same_and_the_trace_is_near(
    made: Made, tasks: Tasks
) -> None:
    model, examples = made("lenet", 30)
    kernels = Kernels(model, tasks, examples)
    rows = kernels.outputs(0)
    dense = dense_spectrum(kernels.gram(rows))
    free = free_spectrum(lambda v: kernels.tangents.apply(rows, rows, v), len(rows), seed=0, largest=8, probes=200)
    # ARPACK's tolerance is machine precision; float64 sums are taken in another order.
    assert torch.allclose(free.eigenvalues, dense.eigenvalues[:8], rtol=1e-8)
    # Four standard errors of the estimate; for tr K^2, whose probes vary more, a quarter.
    assert abs(free.trace - dense.trace) < 4 * free.trace_error < dense.trace
    assert math.isclose(free.squared, dense.squared, rel_tol=0.25)
    assert not free.complete
    assert math.isnan(free.condition)


def test_hutchinsons_estimate_is_exact_for_a_diagonal_kernel_and_repeats_itself() -> None:
    diagonal = torch.arange(1.0, 9.0, dtype=torch.float64)
    assert hutchinson(lambda v: diagonal * v, 8, 0, 3) == (36.0, float(diagonal.square().sum()), 0.0)
    dense = diagonal[:, None] * diagonal
    once, again = (hutchinson(lambda v: dense @ v, 8, 5, 3) for _ in range(2))
    assert once == again
    with pytest.raises(ValueError, match="1 to 7 eigenvalues"):
        top_eigenpairs(lambda v: diagonal * v, 8, 0, 8)


def test_a_kernel_that_does_not_fit_is_measured_without_its_matrix(made: Made, tasks: Tasks) -> None:
    model, examples = made("mlp", 40)
    small, large = (Kernels(model, tasks, examples, memory=memory) for memory in (20_000, 1 << 30))
    rows = large.outputs(0)  # 120 rows: 115,200 bytes
    assert not small.fits(rows)
    assert large.fits(rows)
    assert small.spectrum(rows).top == pytest.approx(large.spectrum(rows).top, rel=1e-8)
    assert torch.allclose(small.product(rows)(torch.ones(120).double()), large.gram(rows).sum(1), **EXACT)


def test_the_trace_adds_over_clients_and_the_largest_eigenvalue_lies_between(made: Made, tasks: Tasks) -> None:
    model, examples = made("mlp", 30)
    parts = torch.arange(30).split([5, 12, 13])
    pooled = Kernels(model, tasks, examples)
    own = [Kernels(model, tasks, examples.take(part)) for part in parts]
    for index in range(len(tasks)):
        whole = pooled.spectrum(pooled.losses(index))
        each = [kernels.spectrum(kernels.losses(index)) for kernels in own]
        assert math.isclose(whole.trace, sum(one.trace for one in each), rel_tol=1e-12)
        assert max(one.top for one in each) <= whole.top * (1 + 1e-12) <= sum(one.top for one in each) * (1 + 2e-12)


def test_alignment_of_groups_is_that_of_their_gradients_second_moments(made: Made, tasks: Tasks) -> None:
    model, examples = made("tanh", 12)
    kernels = Kernels(model, tasks, examples)
    rows = kernels.losses(0)
    J = kernels.tangents._gradients(rows)
    groups = list(torch.arange(12).split([3, 4, 5]))
    moments = torch.stack([J[g].t() @ J[g] for g in groups])
    kernel = kernels.gram(rows)
    assert torch.allclose(group_alignment(kernel, groups), kernel_alignment(moments), **EXACT)
    means = torch.stack([J[g].mean(0) for g in groups])
    assert torch.allclose(mean_gradient_products(kernel, groups), means @ means.t(), **EXACT)


def test_cosines_between_tasks_are_those_of_their_mean_gradients(kind: str, made: Made, tasks: Tasks) -> None:
    model, examples = made(kind)
    kernels = Kernels(model, tasks, examples)
    means = torch.stack([kernels.tangents._gradients(kernels.losses(i)).mean(0) for i in range(len(tasks))])
    found = kernels.gradient_cosines()
    assert torch.allclose(found, cosines(means @ means.t()), **EXACT)
    assert torch.allclose(found.diagonal(), torch.ones(len(tasks)).double())


def test_a_kernel_of_nothing_needs_no_matrix_to_be_known(made: Made, tasks: Tasks) -> None:
    model, examples = made("linear", 40)
    kernels = Kernels(model, tasks, examples, memory=20_000)
    rows = kernels.outputs(0)
    assert not kernels.fits(rows)
    spectrum = kernels.spectrum(rows)
    assert (spectrum.top, spectrum.trace, spectrum.squared) == (0.0, 0.0, 0.0)
    assert math.isnan(spectrum.effective_rank)


@pytest.mark.parametrize("seed", range(5))
def test_without_the_matrix_the_trace_is_at_least_what_the_largest_eigenvalues_add_up_to(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    J = torch.randn(200, 60, generator=draw, dtype=torch.float64) * 0.7 ** torch.arange(60)
    kernel = J @ J.t()
    free = free_spectrum(lambda v: kernel @ v, 200, seed, largest=16, probes=8)
    exact = dense_spectrum(kernel)
    assert free.trace >= float(free.eigenvalues.sum())
    # The 16 largest are known: 0.3 % of the trace is left to be estimated.
    assert free.trace == pytest.approx(exact.trace, rel=2e-3)
    assert free.squared == pytest.approx(exact.squared, rel=1e-4)
    assert free.trace_error < 1e-3 * exact.trace
