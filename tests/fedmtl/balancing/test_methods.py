"""Each method against its definition, on Gram matrices: golden vectors, optimality, invariances.

Long because every method has its golden vectors here.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmtl.balancing import build_balancer
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.balancing.jacobian_method import JacobianMethod
from fedmtl.balancing.simplex import least_on_simplex
from fedmtl.balancing.torchjd_adapter import SDMGrad
from fedmtl.balancing.weights import balanced_weights
from fedmtl.protocol import Balancing

GOLDEN = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)
CONFLICT = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
seeds = st.integers(0, 2**31)


def make(name: str, **options) -> JacobianMethod:
    balancer = build_balancer(Balancing(name, options))
    assert isinstance(balancer, JacobianMethod)
    balancer.start_job(torch.Generator().manual_seed(5))
    return balancer


def weigh(name: str, rows: Tensor, losses: Tensor | None = None, **options) -> Tensor:
    balancer = make(name, **options)
    assert isinstance(balancer, GramWeighting)
    sizes = torch.ones(len(rows), dtype=torch.float64) if losses is None else losses
    return balancer.weigh(rows @ rows.T, sizes, range(len(rows)))


def direction(name: str, rows: Tensor, losses: Tensor | None = None, **options) -> Tensor:
    ones = torch.ones(len(rows), dtype=rows.dtype)
    sizes = ones if losses is None else losses
    return make(name, **options).combine(rows, sizes, ones.bool(), ones)[0]


def jacobian(seed: int, tasks: int, decades: float = 3.0, parameters: int = 12) -> Tensor:
    """Random gradients, a row per task, with norms spread over so many decades."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, parameters, generator=generator, dtype=torch.float64)
    return rows * 10 ** (decades * (torch.rand(tasks, 1, generator=generator, dtype=torch.float64) - 0.5))


def orthogonal(seed: int, tasks: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(12, tasks, generator=generator, dtype=torch.float64)).Q.T


def cosine(one: Tensor, other: Tensor) -> float:
    return (one @ other / (one.norm() * other.norm())).item()


def ntkmtl(rows: Tensor) -> Tensor:
    return balanced_weights(rows.square().sum(1), w_max=math.inf) @ rows


def close(values: list[float], atol: float = 1e-6) -> object:
    return pytest.approx(values, abs=atol)


def test_golden_vectors_of_two_tasks():
    assert weigh("imtl-g", GOLDEN).tolist() == close([1 / 6, 5 / 6])
    assert direction("imtl-g", GOLDEN).tolist() == close([4 / 3, 2 / 3])
    assert weigh("nash-mtl", GOLDEN).tolist() == close([0.158114, 0.790569])
    assert direction("nash-mtl", GOLDEN).tolist() == close([1.264911, 0.632456])
    assert direction("nash-mtl", GOLDEN).square().sum().item() == pytest.approx(2, abs=1e-6)
    assert weigh("mgda", GOLDEN).tolist() == close([0, 1])


def test_golden_vectors_of_two_tasks_in_conflict():
    assert direction("pcgrad", CONFLICT).tolist() == close([0.5, 1.5])
    assert weigh("mgda", CONFLICT).tolist() == close([0.6, 0.4])
    assert direction("mgda", CONFLICT).tolist() == close([0.2, 0.4])


@given(seed=seeds)
def test_two_tasks_have_one_direction_by_imtl_g_nash_and_ntkmtl(seed):
    rows = jacobian(seed, 2)
    units = rows / rows.norm(dim=1, keepdim=True)
    cos = (units[0] @ units[1]).item()
    exact = 1 / (rows.norm(dim=1) * math.sqrt(1 + cos))
    torch.testing.assert_close(weigh("nash-mtl", rows), exact, rtol=1e-6, atol=0)
    for name in ("imtl-g", "nash-mtl"):
        assert cosine(direction(name, rows), ntkmtl(rows)) == pytest.approx(1, abs=1e-6)


@given(seed=seeds, tasks=st.integers(2, 8))
def test_db_mtl_of_the_latest_gradients_is_ntkmtl_on_log_losses(seed, tasks):
    rows = jacobian(seed, tasks)
    losses = 10 ** torch.randn(tasks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = direction("db-mtl", rows, losses, beta=0.0)
    assert cosine(found, ntkmtl(rows / losses[:, None])) == pytest.approx(1, abs=1e-6)


@given(seed=seeds, tasks=st.integers(2, 8))
def test_db_mtl_averages_gradients_over_steps_without_favouring_zero(seed, tasks):
    """After one step the average is the gradient; after two it is the mean with weights 0.9 : 1."""
    first, second = jacobian(seed, tasks), jacobian(seed + 1, tasks)
    ones = torch.ones(tasks, dtype=torch.float64)
    balancer = make("db-mtl", beta=0.9)
    assert isinstance(balancer, JacobianMethod)
    balancer.combine(first, ones, ones.bool(), ones)
    found, weights = balancer.combine(second, ones, ones.bool(), ones)
    average = (0.9 * first + second) / 1.9
    norms = average.norm(dim=1)
    torch.testing.assert_close(found, (norms.max() / norms) @ average, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(weights, norms.max() / norms / 1.9, rtol=1e-6, atol=1e-9)


@given(seed=seeds, tasks=st.integers(2, 6), task=st.integers(0, 5), factor=st.floats(1e-2, 1e2))
@pytest.mark.parametrize("name", ["imtl-g", "nash-mtl", "db-mtl"])
@settings(max_examples=40)
def test_scaling_one_loss_leaves_the_direction(name, seed, tasks, task, factor):
    rows, losses = jacobian(seed, tasks, decades=1), torch.ones(tasks, dtype=torch.float64)
    scale = torch.ones(tasks, dtype=torch.float64)
    scale[task % tasks] = factor
    one, other = direction(name, rows, losses), direction(name, rows * scale[:, None], losses * scale)
    # IMTL-G's weights may all but cancel; its cosines are float32.
    assume(name != "imtl-g" or weigh(name, rows).abs().sum() < 10)
    assert abs(cosine(one, other)) == pytest.approx(1, abs=1e-5)


SCALED_ALIKE = [
    "mgda",
    "pcgrad",
    "cagrad",
    "imtl-g",
    "gradvac",
    "aligned-mtl",
    "upgrad",
    "imgrad",
    "conicgrad",
    "gradnorm",
]


@pytest.mark.parametrize("name", SCALED_ALIKE)
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_scaling_all_losses_scales_the_direction(name, factor):
    rows = jacobian(4, 3, decades=1)
    torch.testing.assert_close(direction(name, rows * factor), direction(name, rows) * factor, rtol=1e-3, atol=0)


@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e-3, 1e6])
def test_sdmgrad_weighs_small_gradients_like_large_ones(factor):
    rows = jacobian(7, 3, decades=0)
    product = rows @ (rows + 0.3 * jacobian(8, 3, decades=0)).T
    weights, scaled = (SDMGrad(0.3, 10.0, 0.5, 20)(m) for m in (product, product * factor**2))
    # torchjd adds 1e-8 to a scale of at least 1e-4.
    torch.testing.assert_close(scaled, weights, rtol=1e-3, atol=0)


@given(seed=seeds, tasks=st.integers(2, 6))
@settings(max_examples=25)
def test_mgda_gains_at_least_its_length_for_every_task(seed, tasks):
    rows = jacobian(seed, tasks, decades=1)
    found = direction("mgda", rows)
    assert (rows @ found).min() >= found.square().sum() - 1e-6 * rows.square().sum(1).min()


@given(seed=seeds)
def test_mgda_of_two_tasks_is_the_closed_form(seed):
    g1, g2 = rows = jacobian(seed, 2)
    first = (((g2 - g1) @ g2) / (g1 - g2).square().sum()).clamp(0, 1).item()
    assert weigh("mgda", rows).tolist() == close([first, 1 - first])


@given(seed=seeds, tasks=st.integers(2, 6))
@settings(max_examples=25)
def test_ntkmtl_of_exponent_one_is_mgda_where_gradients_are_orthogonal(seed, tasks):
    lengths = 10 ** (torch.rand(tasks, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5)
    rows = orthogonal(seed, tasks) * lengths
    weights = balanced_weights(rows.square().sum(1), 1.0, w_max=math.inf)
    assert cosine(weights @ rows, direction("mgda", rows)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("normalisation", "scale"), [("l2", [5, 1]), ("loss", [2, 3]), ("loss+", [10, 3])])
def test_mgda_normalises_the_gradients_that_it_weighs(normalisation, scale):
    losses = torch.tensor([2.0, 3.0], dtype=torch.float64)
    divided = GOLDEN / torch.tensor(scale, dtype=torch.float64)[:, None]
    found = weigh("mgda", GOLDEN, losses, normalisation=normalisation)
    torch.testing.assert_close(found, weigh("mgda", divided))


@given(seed=seeds, tasks=st.integers(2, 6))
@settings(max_examples=25)
def test_pcgrad_without_conflict_is_the_sum(seed, tasks):
    rows = jacobian(seed, tasks).abs()
    torch.testing.assert_close(direction("pcgrad", rows), rows.sum(0))
    torch.testing.assert_close(direction("pcgrad", rows, reduction="mean"), rows.mean(0))
    torch.testing.assert_close(direction("gradvac", rows), rows.sum(0))  # its first targets are 0


def test_cagrad_without_radius_is_the_mean():
    rows = jacobian(3, 4, decades=1)
    torch.testing.assert_close(direction("cagrad", rows, c=0.0), rows.mean(0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_cagrad_serves_the_worst_task_best_within_its_radius(seed):
    c, rows = 0.5, jacobian(seed, 3, decades=1)
    mean = rows.mean(0)
    found = direction("cagrad", rows, c=c, rescale=False)
    assert (found - mean).norm().item() == pytest.approx(c * mean.norm().item(), rel=1e-4)
    torch.testing.assert_close(direction("cagrad", rows, c=c) * (1 + c * c), found)
    generator = torch.Generator().manual_seed(seed)
    others = torch.randn(500, 12, generator=generator, dtype=torch.float64)
    others = mean + c * mean.norm() * others / others.norm(dim=1, keepdim=True)
    worst = (rows @ found).min()
    assert worst >= (others @ rows.T).amin(1).max() - 1e-6 * rows.square().sum(1).max()


@given(seed=seeds, tasks=st.integers(2, 8))
@settings(max_examples=30)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0, 10.0])
def test_fairgrad_solves_its_equation(alpha, seed, tasks):
    rows = jacobian(seed, tasks)
    weights = weigh("fairgrad", rows, alpha=alpha)
    assert (weights > 0).all()
    ratio = (rows @ rows.T @ weights) * weights ** (1 / alpha)
    # What is solved has a ridge of 1e-8 on the cosines, which counts where weights are far above those of orthogonal
    # rows. The solver stops at a relative error of 1e-8; the check's own rounding, of about 1e-10, comes on top.
    ridge = 1e-8 * rows.square().sum(1) * weights ** (1 + 1 / alpha)
    torch.testing.assert_close(ratio + ridge, torch.ones(tasks, dtype=torch.float64), rtol=2e-8, atol=0)


@given(seed=seeds, tasks=st.integers(2, 8))
@settings(max_examples=30)
def test_nash_is_fairgrad_of_alpha_one_and_shares_the_gain_equally(seed, tasks):
    rows = jacobian(seed, tasks, decades=6)
    weights = weigh("nash-mtl", rows)
    assert torch.equal(weights, weigh("fairgrad", rows, alpha=1.0))
    torch.testing.assert_close(
        weights * (rows @ (weights @ rows)), torch.ones(tasks, dtype=torch.float64), rtol=1e-5, atol=0
    )
    assert (weights @ rows).square().sum().item() == pytest.approx(tasks, rel=1e-5)


@given(seed=seeds, tasks=st.integers(2, 6))
@example(seed=68, tasks=6)
@settings(max_examples=30)
def test_upgrad_is_in_conflict_with_no_task(seed, tasks):
    rows = jacobian(seed, tasks)
    found, units = direction("upgrad", rows), rows / rows.norm(dim=1, keepdim=True)
    multiples = torch.linalg.lstsq(units.T, found.unsqueeze(1)).solution.flatten()
    # To the diagonal of the cosines eps times their trace is added, by which (C u)_i may be -eps k u_i; and rounding.
    least = -1e-4 * tasks * multiples / found.norm()
    assert ((units @ found) / found.norm() >= least - 1e-6).all()


@given(seed=seeds, tasks=st.integers(2, 6))
@settings(max_examples=30)
@pytest.mark.parametrize("name", ["aligned-mtl", "upgrad", "mgda", "imtl-g"])
def test_equally_long_orthogonal_gradients_give_the_mean_direction(name, seed, tasks):
    rows = 3 * orthogonal(seed, tasks)
    assert cosine(direction(name, rows), rows.mean(0)) == pytest.approx(1, abs=1e-5)


@given(seed=seeds, tasks=st.integers(2, 6))
@settings(max_examples=30)
def test_aligned_mtl_makes_the_principal_components_equally_long(seed, tasks):
    rows = jacobian(seed, tasks, decades=1)
    left, sizes, right = torch.linalg.svd(rows, full_matrices=False)
    expected = (sizes.min() * left @ right).mean(0)
    # Eigenvalues of float32, to the power -1/2.
    assume(sizes.min() > 1e-2 * sizes.max())
    assert cosine(direction("aligned-mtl", rows), expected) == pytest.approx(1, abs=1e-3)


def test_imtl_g_gains_the_same_along_every_unit_gradient():
    rows = jacobian(11, 4)
    found = direction("imtl-g", rows)
    gains = rows @ found / rows.norm(dim=1)
    torch.testing.assert_close(gains, gains.mean().expand(4), rtol=1e-3, atol=0)
    assert weigh("imtl-g", rows).sum().item() == pytest.approx(1)


@given(seed=seeds)
@settings(max_examples=20)
def test_the_least_on_the_simplex_is_at_most_that_of_many_points(seed):
    rows = jacobian(seed, 4, decades=0.5).numpy()
    m = rows @ rows.T / np.square(rows).sum(1).mean()

    def squared_length(w):
        return float(w @ m @ w), 2 * m @ w

    w = least_on_simplex(squared_length, 4)
    assert w.sum() == pytest.approx(1)
    assert w.min() >= 0
    points = np.random.default_rng(seed).dirichlet(np.ones(4), 300)
    assert squared_length(w)[0] <= min(squared_length(point)[0] for point in points) + 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_imgrad_without_agreement_is_cagrad_and_keeps_its_radius(seed):
    c, rows = 0.8, jacobian(seed, 3, decades=0.3)
    found = direction("imgrad", rows, c=c) * (1 + c * c)
    assert (found - rows.mean(0)).norm().item() == pytest.approx(c * rows.mean(0).norm().item(), rel=1e-6)
    # The mean gradient of these is next to nothing along the shortest vector of their hull.
    rows = torch.tensor([[1.0, 1e-3, 0.0], [-1.0, 1e-3, 0.0], [0.0, 1e-3, 4.0]], dtype=torch.float64)
    assert cosine(direction("imgrad", rows, c=c), direction("cagrad", rows, c=c)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(6))
def test_conicgrad_serves_the_worst_task_best_within_its_cone(seed, c):
    rows = jacobian(seed, 3, decades=1)
    mean = rows.mean(0)
    found = direction("conicgrad", rows, c=c)
    assert found.norm().item() == pytest.approx(mean.norm().item(), rel=1e-6)
    assert cosine(found, mean) >= c - 1e-6
    generator = torch.Generator().manual_seed(seed)
    others = torch.randn(3000, 3, generator=generator, dtype=torch.float64) @ rows
    others = torch.cat([others, mean + 0.3 * others * mean.norm() / others.norm(dim=1, keepdim=True)])
    others = others / others.norm(dim=1, keepdim=True) * mean.norm()
    inside = others[others @ mean >= c * mean.square().sum()]
    worst = (rows @ found).min()
    assert worst >= (inside @ rows.T).amin(1).max() - 1e-3 * rows.square().sum(1).max()


def test_graddrop_keeps_one_sign_in_every_coordinate():
    rows = jacobian(2, 4, decades=0.5, parameters=400)
    found = direction("graddrop", rows)
    positive, negative = rows.clamp_min(0).sum(0), rows.clamp_max(0).sum(0)
    kept = torch.isclose(found, positive) | torch.isclose(found, negative)
    assert kept.all()
    assert torch.isclose(found, positive).any()
    assert torch.isclose(found, negative).any()
    torch.testing.assert_close(direction("graddrop", rows, leak=1.0), rows.sum(0))


def test_moco_tracks_gradients_and_moves_towards_mgda():
    balancer = make("moco", beta=1.0, gamma=0.05)
    ones = torch.ones(2, dtype=torch.float64)
    for _ in range(400):
        found, weights = balancer.combine(CONFLICT, ones, ones.bool(), ones)
    assert weights.tolist() == close([0.6, 0.4], atol=1e-4)
    assert found.tolist() == close([0.2, 0.4], atol=1e-4)


def test_moco_estimates_are_running_means():
    ones = torch.ones(2, dtype=torch.float64)
    balancer = make("moco", beta=0.25, gamma=1e-12)
    balancer.combine(GOLDEN, ones, ones.bool(), ones)
    found, _ = balancer.combine(2 * GOLDEN, ones, ones.bool(), ones)
    torch.testing.assert_close(found, ((0.75 * 0.25 + 0.25 * 2) * GOLDEN).mean(0))


def test_adatask_is_adam_for_each_task():
    ones = torch.ones(2, dtype=torch.float64)
    balancer = make("adatask")
    parameters = [torch.zeros(2, dtype=torch.float64) for _ in range(2)]
    optimizers = [torch.optim.Adam([parameter], lr=1.0) for parameter in parameters]
    for scale in (1.0, -2.0, 0.5):
        found, _ = balancer.combine(scale * GOLDEN, ones, ones.bool(), ones)
        before = sum(parameter.clone() for parameter in parameters)
        for parameter, optimizer, row in zip(parameters, optimizers, GOLDEN, strict=True):
            parameter.grad = scale * row
            optimizer.step()
        torch.testing.assert_close(found, before - sum(parameters))


def test_gradvac_turns_gradients_until_their_cosine_is_what_it_was_of_late():
    ones = torch.ones(2, dtype=torch.float64)
    close_ones = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)  # cosine 0.8
    balancer = make("gradvac", beta=1.0)
    balancer.combine(close_ones, ones, ones.bool(), ones)
    square = torch.eye(2, dtype=torch.float64)
    _, weights = balancer.combine(square, ones, ones.bool(), ones)
    # Each is given 0.8 / 0.6 of the other, whereupon their cosine is 0.8.
    assert weights.tolist() == close([1 + 4 / 3, 1 + 4 / 3], atol=1e-5)


def test_gradvac_stays_finite_for_gradients_that_have_long_been_parallel():
    ones = torch.ones(2, dtype=torch.float64)
    parallel = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64)
    balancer = make("gradvac")
    for _ in range(100):
        found, weights = balancer.combine(parallel, ones, ones.bool(), ones)
    assert weights.isfinite().all()
    assert cosine(found, parallel.sum(0)) == pytest.approx(1)


def test_gradnorm_favours_the_task_that_is_slow():
    balancer = make("gradnorm", rate=0.1)
    assert isinstance(balancer, GramWeighting)
    gram = torch.eye(2, dtype=torch.float64)
    start = balancer.weigh(gram, torch.tensor([1.0, 1.0], dtype=torch.float64), (0, 1))
    assert start.tolist() == [1.0, 1.0]
    for _ in range(30):
        weights = balancer.weigh(gram, torch.tensor([0.9, 0.1], dtype=torch.float64), (0, 1))
    assert weights.sum().item() == pytest.approx(2)
    assert weights[0] > 1.3


NEARLY_SINGULAR = {
    "parallel": [[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.5, 1.0, 0.0]],
    "opposed": [[1.0, 2.0, 0.0], [-1.0, -2.0, 0.0], [0.0, 0.0, 1.0]],
    "the same": [[1.0, 2.0, 3.0]] * 3,
    "dependent": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]],
    "of all sizes": [[1e-9, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1e6, 1e6]],
    "tiny": [[1e-15, 0.0, 0.0], [0.0, 2e-15, 0.0], [1e-15, 1e-15, 1e-15]],
}
ON_GRAM = ["mgda", "pcgrad", "cagrad", "imtl-g", "gradnorm", "gradvac", "nash-mtl", "fairgrad", "imgrad", "conicgrad"]


@pytest.mark.parametrize("kind", NEARLY_SINGULAR)
@pytest.mark.parametrize("name", [*ON_GRAM, "aligned-mtl", "upgrad", "graddrop", "moco", "adatask", "db-mtl"])
def test_gradients_that_are_linearly_dependent_or_of_all_sizes_give_something_finite(name, kind):
    rows = torch.tensor(NEARLY_SINGULAR[kind], dtype=torch.float64)
    balancer = make(name)
    ones = torch.ones(3, dtype=torch.float64)
    for _ in range(3):
        found, weights = balancer.combine(rows, ones, ones.bool(), ones)
        assert found.isfinite().all()
        assert weights.isfinite().all()
