"""What holds for every balancer, on every model.

Long because each property is held once, for all balancers.
"""

import inspect
import math

import pytest
import torch
from torch import Tensor

from fedmtl.balancing import BALANCERS, build_balancer
from fedmtl.balancing.gram_weighting import GramWeighting
from fedmtl.components import check_options, options_of
from fedmtl.errors import ConfigError
from fedmtl.models import MODELS
from fedmtl.protocol import Balancing

# Sums of float32 in another order; the gradients' entries are of size 1e-4 to 10.
TOLERANCE = {"rtol": 2e-4, "atol": 2e-5}

VARIANTS = {
    "equal": ("equal", {}),
    "equal-probed": ("equal-probed", {}),
    "equal-probed, sr": ("equal-probed", {"probe": "sr", "statistic": "top_eig"}),
    "equal-probed, de-noised": ("equal-probed", {"statistic": "denoised"}),
    "ntkmtl": ("ntkmtl", {}),
    "ntkmtl, 3 chunks": ("ntkmtl", {"chunks": 3}),
    "ntkmtl, trace": ("ntkmtl", {"chunks": 4, "statistic": "trace"}),
    "ntkmtl, de-noised": ("ntkmtl", {"chunks": 2, "statistic": "denoised"}),
    "ntkmtl-sr": ("ntkmtl-sr", {}),
    "ntkmtl-sr, trace": ("ntkmtl-sr", {"chunks": 3, "statistic": "trace", "exponent": 0.75, "w_max": 50.0}),
    "mgda, normalised": ("mgda", {"normalisation": "loss+"}),
    "db-mtl, latest": ("db-mtl", {"beta": 0.0}),
    "fairgrad, alpha 1": ("fairgrad", {"alpha": 1.0}),
    "cagrad, times tasks": ("cagrad", {"times_tasks": True}),
    "upgrad, gram": ("upgrad", {"scale": "gram"}),
    "aligned-mtl, median": ("aligned-mtl", {"scale": "median"}),
    **{name: (name, {}) for name in BALANCERS if name not in ("equal", "equal-probed", "ntkmtl", "ntkmtl-sr")},
}
WEIGH_BY_KERNELS = {"ntkmtl", "ntkmtl-sr"}
DESCEND_BY_PARTS = {"graddrop", "adatask", "sdmgrad"}
"""Their direction is no weighted sum of the whole batch's gradients: signs, moments, a third of the batch."""
DRAW = {"rlw", "pcgrad", "graddrop", "gradvac"}
WEIGH_NOTHING = {"equal", "equal-probed"}
WEIGHED_BY_GRAM = {
    name for name, build in BALANCERS.items() if isinstance(build, type) and issubclass(build, GramWeighting)
}
each_balancer = pytest.mark.parametrize("variant", VARIANTS)


def flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([torch.empty(0), *(part.reshape(-1) for part in parts)])


def weights_of(gradients, tasks: int) -> Tensor:
    return torch.ones(tasks) if gradients.weights is None else gradients.weights


def assert_is_weighted_sum(shared, weights: Tensor, gradients: Tensor) -> None:
    """In float32 the error is bounded by the lengths that were added, not by the length of their sum."""
    error = (flat(shared) - weights @ gradients).norm()
    assert error <= 1e-5 * (weights.abs() * gradients.norm(dim=1)).sum()


def longest(shared) -> float:
    return flat(shared).abs().max().item()


def has_head_weights(name: str) -> bool:
    return "head_weight" in {option.name for option in options_of(BALANCERS[name])}


@pytest.fixture(params=MODELS)
def step(request, make_step):
    """A step of every model, on a small batch that no number of chunks divides evenly."""
    return make_step(request.param, batch=11)


@pytest.fixture(scope="module")
def separately():
    """Gives the losses, shared gradients and head gradients by autograd: each model's step is always the same."""
    found = {}

    def look(step):
        if step.name not in found:
            found[step.name] = torch.stack(step.losses()).detach(), step.shared_gradients(), step.head_gradients()
        return found[step.name]

    return look


def test_every_balancer_is_tried():
    assert {name for name, _ in VARIANTS.values()} == set(BALANCERS)


@each_balancer
@pytest.mark.parametrize(
    ("head_weight", "factors"), [("unweighted", None), ("weighted", None), ("weighted", (0.5, 0.0, 2.0, 1.0))]
)
def test_the_shared_gradient_is_the_weighted_sum_and_heads_follow_their_own(
    step, separately, variant, head_weight, factors
):
    name, options = VARIANTS[variant]
    losses, shared_gradients, head_gradients = separately(step)
    if has_head_weights(name):
        options = {**options, "head_weight": head_weight}
    result = step.run(name, factors, **options)
    weights = weights_of(result, 4)
    torch.testing.assert_close(result.losses, losses)
    if name not in DESCEND_BY_PARTS:
        assert_is_weighted_sum(result.shared, weights, shared_gradients)
    if not has_head_weights(name):
        return
    for head, own, weight in zip(result.heads, head_gradients, weights, strict=True):
        expected = own * weight if head_weight == "weighted" else own
        torch.testing.assert_close(flat(head), expected, **TOLERANCE)


@each_balancer
def test_gradients_have_the_shapes_of_their_parameters_and_no_graph(step, variant):
    name, options = VARIANTS[variant]
    result = step.run(name, **options)
    assert [g.shape for g in result.shared] == [p.shape for p in step.network.shared]
    for gradients, parameters in zip(result.heads, step.network.heads, strict=True):
        assert [g.shape for g in gradients] == [p.shape for p in parameters]
    tensors = [*result.shared, *(g for head in result.heads for g in head), result.losses]
    tensors += [value for value in (result.weights, result.kernel_sizes) if value is not None]
    assert not any(tensor.requires_grad for tensor in tensors)


@each_balancer
def test_a_step_changes_nothing_in_the_model_and_repeats_to_the_bit(step, variant):
    name, options = VARIANTS[variant]
    before = {key: value.clone() for key, value in step.model.state_dict().items()}
    first, again = (step.run(name, (1.0, 2.0, 0.5, 1.0), **options) for _ in range(2))
    assert all(torch.equal(value, before[key]) for key, value in step.model.state_dict().items())
    assert all(parameter.grad is None for parameter in step.model.parameters())
    assert torch.equal(flat(first.shared), flat(again.shared))
    assert all(torch.equal(flat(one), flat(other)) for one, other in zip(first.heads, again.heads, strict=True))


@each_balancer
@pytest.mark.parametrize("task", range(4))
def test_a_single_owned_task_is_plain_descent(make_step, variant, task):
    name, options = VARIANTS[variant]
    single = make_step(tasks=[task])
    result = single.run(name, **options)
    assert weights_of(result, 1).tolist() == [1.0]
    torch.testing.assert_close(flat(result.shared), single.shared_gradients()[0], **TOLERANCE)
    torch.testing.assert_close(flat(result.heads[0]), single.head_gradients()[0], **TOLERANCE)


@each_balancer
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_batches_smaller_than_the_chunks_are_trained(make_step, variant, batch):
    name, options = VARIANTS[variant]
    short = make_step(batch=batch)
    result = short.run(name, **options)
    assert flat(result.shared).isfinite().all()
    weights = weights_of(result, 4)
    if name not in DESCEND_BY_PARTS:
        assert_is_weighted_sum(result.shared, weights, short.shared_gradients())


@each_balancer
def test_the_order_of_tasks_does_not_matter(make_step, variant):
    name, options = VARIANTS[variant]
    if name in DRAW:
        pytest.skip("draws for the first task, the second, and so on")
    order = [2, 0, 3, 1]
    straight, shuffled = make_step(), make_step(tasks=order)
    with torch.no_grad():  # heads are initialised in their order, so give both models the same ones
        for name_, head in shuffled.model.heads.items():
            head.load_state_dict(straight.model.heads[name_].state_dict())
        shuffled.model.backbone.load_state_dict(straight.model.backbone.state_dict())
    one, other = straight.run(name, **options), shuffled.run(name, **options)
    weights = weights_of(one, 4)
    # Solvers stop where they are near enough, which is not the same place for another order.
    torch.testing.assert_close(weights_of(other, 4), weights[order], rtol=1e-3, atol=1e-4 * weights.abs().max().item())
    torch.testing.assert_close(flat(other.shared), flat(one.shared), rtol=1e-3, atol=1e-4 + 1e-4 * longest(one.shared))


@each_balancer
@pytest.mark.parametrize("bound", [0.0, 1e-3, 0.5, 1e6])
def test_the_clip_bounds_the_shared_gradient_and_keeps_its_direction(make_step, variant, bound):
    name, options = VARIANTS[variant]
    raw = make_step().run(name, **options)
    cut = make_step().run(name, **options, clip=bound)
    norm = flat(raw.shared).norm()
    factor = 1.0 if bound == 0 else min(1.0, bound / norm.item())
    torch.testing.assert_close(flat(cut.shared), flat(raw.shared) * factor, rtol=1e-5, atol=1e-8)
    for one, other in zip(cut.heads, raw.heads, strict=True):
        assert torch.equal(flat(one), flat(other))


@each_balancer
def test_the_options_can_be_checked_and_explained(variant):
    name, options = VARIANTS[variant]
    checked = check_options(BALANCERS[name], options, "balancing", name)
    assert set(checked) == {option.name for option in options_of(BALANCERS[name])}
    build_balancer(Balancing(name, checked))
    assert inspect.getdoc(BALANCERS[name])
    assert all(option.param.help for option in options_of(BALANCERS[name]))


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("ntkmlt", {}, r"balancing.name = 'ntkmlt' is unknown \(did you mean 'ntkmtl'"),
        ("ntkmtl-sr", {"chunk": 2}, r"balancing.chunk is not a key of 'ntkmtl-sr' \(did you mean 'chunks'"),
        ("ntkmtl", {"statistic": "denoised"}, r"set balancing.chunks to 2 or more"),
        ("ntkmtl", {"w_max": 0.5}, r"balancing.w_max = 0.5: expected at least 1, or 0"),
        ("ntkmtl-sr", {"w_max": 0.5}, r"balancing.w_max = 0.5"),
        ("equal-probed", {"statistic": "denoised", "batches": 1}, r"set balancing.batches to 2 or more"),
        ("equal-probed", {"statistic": "denoised", "probe": "sr"}, r"balancing.probe = 'full'"),
    ],
)
def test_wrong_options_are_refused(name, options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        build_balancer(Balancing(name, options))


def broken_step(make_step, fault: float):
    broken = make_step()
    broken.targets[2][5] = fault
    return broken


@each_balancer
@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_a_faulty_loss_is_reported_and_leaves_the_other_tasks_alone(make_step, variant, fault):
    name, options = VARIANTS[variant]
    if has_head_weights(name):
        options = {**options, "head_weight": "unweighted"}
    broken = broken_step(make_step, fault)
    result = broken.run(name, **options)
    sound = [0, 1, 3]
    assert result.losses.isfinite().tolist() == [True, True, False, True]
    for task in sound:
        assert flat(result.heads[task]).isfinite().all()
        if has_head_weights(name):
            torch.testing.assert_close(flat(result.heads[task]), broken.head_gradients()[task], **TOLERANCE)
    if name in WEIGH_NOTHING:
        return  # it has nothing to leave out with; the loss tells
    assert result.weights.isfinite().all()
    assert flat(result.shared).isfinite().all()
    if result.kernel_sizes is not None:
        assert result.kernel_sizes.isfinite().tolist() == [True, True, False, True]
    if name not in DESCEND_BY_PARTS:
        assert_is_weighted_sum(result.shared, result.weights[sound], broken.shared_gradients()[sound])


@each_balancer
@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_a_kernel_that_is_not_finite_is_weighed_inside_the_clip_and_nothing_else_weighs_a_faulty_task(
    make_step, variant, fault
):
    name, options = VARIANTS[variant]
    weights = weights_of(broken_step(make_step, fault).run(name, **options), 4)
    if name in WEIGH_BY_KERNELS:
        middle = weights[[0, 1, 3]].sort().values[1]
        assert ((weights >= middle / 50.001) & (weights <= middle * 50.001)).all()
    elif name not in WEIGH_NOTHING:
        assert weights[2] == 0


@pytest.mark.parametrize("variant", [v for v in VARIANTS if VARIANTS[v][0] in WEIGHED_BY_GRAM])
def test_a_method_on_the_gram_matrix_does_without_a_faulty_task_what_it_does_without_that_task(make_step, variant):
    name, options = VARIANTS[variant]
    broken, without = broken_step(make_step, math.nan), make_step(tasks=[0, 1, 3])
    with torch.no_grad():
        without.model.backbone.load_state_dict(broken.model.backbone.state_dict())
        for task, head in without.model.heads.items():
            head.load_state_dict(broken.model.heads[task].state_dict())
    one, other = broken.run(name, **options), without.run(name, **options)
    # Products of matrices of other shapes round otherwise, and inverses of M make that larger.
    torch.testing.assert_close(one.weights[[0, 1, 3]], other.weights, rtol=1e-3, atol=1e-6)


@each_balancer
@pytest.mark.parametrize("fault", [math.nan, math.inf, 0.0])
def test_a_job_goes_on_after_a_step_with_a_fault(make_step, variant, fault):
    """A task's fault does not outlive the step: what is kept from step to step stays finite."""
    name, options = VARIANTS[variant]
    if name in WEIGH_NOTHING:
        pytest.skip("keeps nothing")
    sound, broken = make_step(), broken_step(make_step, fault)
    balancer = build_balancer(Balancing(name, options))
    balancer.start_job(torch.Generator().manual_seed(3))
    for step in (sound, broken, broken, sound, sound, sound, sound):
        result = balancer.gradients(step.network, step.inputs, step.targets, None)
    assert flat(result.shared).isfinite().all()
    assert flat(result.shared).count_nonzero()
    assert weights_of(result, 4).isfinite().all()
    assert all(flat(head).isfinite().all() for head in result.heads)


@each_balancer
def test_a_job_repeats_to_the_bit_and_remembers_nothing_of_the_last(make_step, variant):
    name, options = VARIANTS[variant]
    step, other = make_step(), make_step(batch=30)
    balancer = build_balancer(Balancing(name, options))
    jobs = []
    for warm_up in (0, 3):
        balancer.start_job(torch.Generator().manual_seed(8))
        for _ in range(warm_up):
            balancer.gradients(other.network, other.inputs, other.targets, None)
        balancer.start_job(torch.Generator().manual_seed(9))
        job = [balancer.gradients(step.network, step.inputs, step.targets, (1.0, 2.0, 1.0, 0.5)) for _ in range(4)]
        jobs.append(torch.stack([flat(result.shared) for result in job]))
    assert torch.equal(*jobs)


def test_torchs_own_generator_is_left_as_it_was(make_step):
    step = make_step()
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    for name in DRAW:
        step.run(name)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted(DRAW))
def test_what_draws_draws_from_the_jobs_generator(make_step, name):
    step = make_step()
    balancer = build_balancer(Balancing(name, {}))

    def job(seed: int) -> Tensor:
        balancer.start_job(torch.Generator().manual_seed(seed))
        results = [balancer.gradients(step.network, step.inputs, step.targets, None) for _ in range(5)]
        return torch.stack([flat(result.shared) for result in results])

    assert torch.equal(job(1), job(1))
    if name != "gradvac":  # these gradients are not in conflict enough for the order to matter in every run
        assert any(not torch.equal(job(1), job(seed)) for seed in range(2, 8))


@each_balancer
def test_a_task_with_zero_gradient_is_no_trouble(make_step, variant):
    name, options = VARIANTS[variant]
    still = make_step()
    with torch.no_grad():  # a head of zeros gives the right answer already, whatever the representation
        for parameter in still.model.heads["ink"].parameters():
            parameter.zero_()
    still.targets[2].zero_()
    result = still.run(name, **options)
    assert result.losses[2] == 0
    assert weights_of(result, 4).isfinite().all()
    assert flat(result.shared).isfinite().all()
    if name not in DESCEND_BY_PARTS:
        assert_is_weighted_sum(result.shared, weights_of(result, 4), still.shared_gradients())


@each_balancer
def test_no_gradient_at_all_is_no_trouble(make_step, variant):
    name, options = VARIANTS[variant]
    still = make_step(tasks=[2, 3])
    with torch.no_grad():
        for parameter in still.model.heads.parameters():
            parameter.zero_()
    for target in still.targets:
        target.zero_()
    result = still.run(name, **options)
    if name in WEIGH_BY_KERNELS | WEIGH_NOTHING | WEIGHED_BY_GRAM:
        assert weights_of(result, 2).tolist() == [2.0 if options.get("times_tasks") else 1.0] * 2
    assert weights_of(result, 2).isfinite().all()
    assert flat(result.shared).count_nonzero() == 0
