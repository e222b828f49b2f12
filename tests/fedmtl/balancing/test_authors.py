"""Balancers beside what their authors do: heads, lengths and bounds, by rules written out from papers and code."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fedmtl.balancing import BALANCERS, TaskNetwork, balance_gradients, build_balancer
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.components import options_of
from fedmtl.protocol import Balancing

ROWS = [[10.0, 0.0, 1.0], [-0.6, 0.8, 0.0], [0.1, -0.3, 0.2]]
LOSSES = [2.0, 0.5, 0.1]


def joined(parts) -> Tensor:
    return torch.cat([part.detach().reshape(-1) for part in parts])


class LogLossReference:
    """DB-MTL with autograd and no special cases: gradients of log(l + 1e-8), their average, the longest's length."""

    def __init__(self, network: TaskNetwork, beta: float, sigma: float) -> None:
        self.network, self.beta, self.sigma = network, beta, sigma
        self.average: Tensor | float = 0.0
        self.steps = 0

    def gradients(self, inputs: Tensor, targets: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The shared gradient, and each head's, flat."""
        logs = [(loss + 1e-8).log() for loss in self.network.losses(self.network.backbone(inputs), targets)]
        rows = [joined(torch.autograd.grad(log, self.network.shared, retain_graph=True)) for log in logs]
        pairs = zip(logs, self.network.heads, strict=True)
        heads = [joined(torch.autograd.grad(log, head, retain_graph=True)) for log, head in pairs]
        self.steps += 1
        share = self.beta / self.steps**self.sigma
        self.average = share * self.average + (1 - share) * torch.stack(rows)
        norms = self.average.norm(dim=1)
        return (norms.max() / norms) @ self.average, heads


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_db_mtl_is_its_authors_over_25_steps_heads_included(make_step, sigma):
    step = make_step()
    reference = LogLossReference(step.network, 0.9, sigma)
    balancer = build_balancer(Balancing("db-mtl", {"sigma": sigma, "bias_correction": False}))
    for _ in range(25):
        shared, heads = reference.gradients(step.inputs, step.targets)
        found = balancer.gradients(step.network, step.inputs, step.targets, None)
        assert (joined(found.shared) - shared).norm() <= 1e-4 * shared.norm()
        for own, head in zip(found.heads, heads, strict=True):
            assert (joined(own) - head).norm() <= 1e-4 * head.norm()
        moved = zip(step.network.values, [*found.shared, *(g for head in found.heads for g in head)], strict=True)
        for value, gradient in moved:
            value.sub_(0.02 * gradient)


def test_db_mtls_start_is_corrected_for_unless_told_otherwise(make_step):
    """The average of t equal gradients lacks the share 0.9^t of them."""
    step = make_step()
    plain, corrected = (build_balancer(Balancing("db-mtl", {"bias_correction": flag})) for flag in (False, True))
    for t in range(1, 4):
        one, other = (b.gradients(step.network, step.inputs, step.targets, None) for b in (plain, corrected))
        torch.testing.assert_close(joined(one.shared), joined(other.shared) * (1 - 0.9**t), rtol=1e-4, atol=1e-6)
        assert torch.equal(joined(one.heads[1]), joined(other.heads[1]))


@pytest.mark.parametrize("heads", [None, "log", "unweighted", "weighted"])
def test_db_mtls_heads_follow_what_the_option_says(heads):
    step = balance_gradients(build_balancer(Balancing("db-mtl", {"head_weight": heads})), ROWS, LOSSES)
    assert step.weights is not None
    expected = {"unweighted": [1.0] * 3, "weighted": step.weights.tolist()}.get(heads or "log", [0.5, 2.0, 10.0])
    assert [head[1].item() for head in step.heads] == pytest.approx(expected, rel=1e-5)


def test_gradnorm_learns_by_the_formula_of_its_docstring():
    """Norms over their mean of the step, K softmax(s), and Adam on the sum of the distances."""
    generator = torch.Generator().manual_seed(4)
    balancer = build_balancer(Balancing("gradnorm", {"rate": 0.1}))
    assert isinstance(balancer, GramWeighting)
    s = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([s], lr=0.1)
    first = None
    for _ in range(25):
        rows = torch.randn(3, 8, generator=generator, dtype=torch.float64) * torch.tensor([[9.0], [1.0], [0.1]])
        losses = torch.rand(3, generator=generator, dtype=torch.float64) + 0.1
        first = losses if first is None else first
        pace = losses / first
        norms = rows.norm(dim=1) / rows.norm(dim=1).mean()
        weights = 3 * s.softmax(0)
        aim = (weights * norms).mean().detach() * (pace / pace.mean()) ** 1.5
        adam.zero_grad()
        (weights * norms - aim).abs().sum().backward()
        found = balancer.weigh(rows @ rows.T, losses, range(3))
        torch.testing.assert_close(found, weights.detach(), rtol=1e-9, atol=0)
        adam.step()


@pytest.mark.parametrize("name", ["ntkmtl", "ntkmtl-sr"])
@pytest.mark.parametrize(("exponent", "bounded"), [(0.5, True), (0.51, False), (0.75, False), (1.0, False)])
def test_ntkmtl_bounds_its_weights_only_up_to_the_papers_exponent(name, exponent, bounded):
    """Kernels of 1e6, 1 and 1e-6; the paper and its authors bound nothing."""
    options = {"exponent": exponent}
    rows = [[1e3, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1e-3]]
    weights = balance_gradients(build_balancer(Balancing(name, options)), rows).weights
    lam = torch.tensor([1e6, 1.0, 1e-6])
    free = (lam.mean() / lam) ** exponent
    expected = free.clamp(free[1] / 50, free[1] * 50) if bounded else free
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=0)
    for w_max, same in ((50.0, bounded), (0.0, not bounded)):
        told = balance_gradients(build_balancer(Balancing(name, {**options, "w_max": w_max})), rows).weights
        assert torch.equal(told, weights) == same


@pytest.mark.parametrize("name", ["ntkmtl", "ntkmtl-sr"])
def test_without_a_bound_a_task_without_a_gradient_weighs_no_more_than_those_with_one(make_step, name):
    """Its omega would be 1e12 and more, and scale its head."""
    step = make_step()
    with torch.no_grad():
        step.model.heads["ink"].weight.zero_()  # its loss and its head have gradients, but the backbone has none
    result = step.run(name, exponent=1.0, head_weight="weighted")
    assert result.kernel_sizes[2] == 0
    assert result.weights[2] == result.weights.max()
    assert result.weights.max() == result.weights[[0, 1, 3]].max()
    torch.testing.assert_close(joined(result.heads[2]), step.head_gradients()[2] * result.weights[2])


@pytest.mark.parametrize("name", ["ntkmtl", "ntkmtl-sr"])
def test_the_exponents_description_says_what_happens_to_the_bound(name):
    said = {option.name: option.param.help for option in options_of(BALANCERS[name])}
    assert "above 0.5 omega is not bounded" in said["exponent"]
    assert "unset: 50, and none for p > 0.5" in said["w_max"]


@pytest.mark.parametrize("name", ["cagrad", "fairgrad", "imgrad", "aligned-mtl", "moco", "sdmgrad"])
def test_the_authors_length_is_the_number_of_tasks_times_as_long(name):
    """CAGrad, FairGrad, IMGrad, MoCo and SDMGrad "match the sum of the losses"; Aligned-MTL adds what is aligned up."""
    one, other = (
        balance_gradients(build_balancer(Balancing(name, {"times_tasks": flag})), ROWS, LOSSES)
        for flag in (False, True)
    )
    torch.testing.assert_close(other.shared[0], 3 * one.shared[0])
    torch.testing.assert_close(other.weights, 3 * one.weights)
    assert [head[1].item() for head in other.heads] == pytest.approx(
        other.weights.tolist() if name == "fairgrad" else [1.0] * 3
    )


def test_a_task_that_is_left_out_does_not_count_in_that_number(make_step):
    broken = make_step()
    broken.targets[2][5] = math.nan
    one, other = (broken.run("cagrad", times_tasks=flag) for flag in (False, True))
    torch.testing.assert_close(other.weights, 3 * one.weights)


def test_fairgrad_as_its_authors_has_unweighted_heads_and_k_times_the_direction_clipped_to_one():
    options = {"alpha": 2.0, "head_weight": "unweighted", "times_tasks": True, "clip": 1.0}
    step = balance_gradients(build_balancer(Balancing("fairgrad", options)), ROWS, LOSSES)
    rows = torch.tensor(ROWS)
    assert step.weights is not None
    w = step.weights / 3
    torch.testing.assert_close(rows @ rows.T @ w, w ** (-1 / 2.0), rtol=1e-4, atol=0)
    d = 3 * w @ rows
    torch.testing.assert_close(step.shared[0], d / d.norm().clamp_min(1.0))
    assert [head[1].item() for head in step.heads] == [1.0, 1.0, 1.0]


def test_mgda_as_its_authors_weighs_the_heads():
    options = {"head_weight": "weighted"}
    step = balance_gradients(build_balancer(Balancing("mgda", options)), [[1.0, 0.0], [-1.0, 1.0]])
    assert [head[1].item() for head in step.heads] == pytest.approx([0.6, 0.4])


@pytest.mark.parametrize("factor", [1.0, 1e-4])
@pytest.mark.parametrize("eps", [1e-4, 1e-2])
def test_upgrad_on_the_gram_matrix_is_torchjds(eps, factor):
    from torchjd.aggregation import UPGrad
    from torchjd.linalg import QuadprogProjector

    rows = factor * torch.tensor(ROWS, dtype=torch.float64)
    expected = UPGrad(projector=QuadprogProjector(reg_eps=eps))(rows)
    told = balance_gradients(build_balancer(Balancing("upgrad", {"eps": eps, "scale": "gram"})), rows)
    torch.testing.assert_close(told.shared[0], expected, rtol=1e-9, atol=0)
    own = balance_gradients(build_balancer(Balancing("upgrad", {"eps": eps})), rows)
    assert not torch.allclose(own.shared[0], expected, rtol=1e-3)


AUTHORS_SETTING = {
    ("fairgrad", "head_weight"): "unweighted",
    ("mgda", "head_weight"): "weighted",
    ("upgrad", "scale"): "gram",
    ("db-mtl", "bias_correction"): "false",
    **{(name, "times_tasks"): "true" for name in ("cagrad", "fairgrad", "imgrad", "aligned-mtl", "moco", "sdmgrad")},
}


@pytest.mark.parametrize(("name", "option"), AUTHORS_SETTING)
def test_where_a_default_is_not_the_authors_the_option_names_theirs(name, option):
    described = next(found for found in options_of(BALANCERS[name]) if found.name == option)
    setting = AUTHORS_SETTING[name, option]
    assert f"in the authors' code: {setting}" in described.param.help
    assert described.param.source == "ours"
    assert described.default not in (setting, setting == "true")
    build_balancer(Balancing(name, {option: {"true": True, "false": False}.get(setting, setting)}))
