"""The probe of FedNTK-trace: kernels at the model that was sent, on the batches that are trained on."""

import pytest
import torch
from torch import Tensor

from fedmtl.balancing import TaskNetwork, build_balancer
from fedmtl.balancing.heads import HeadMetric, reach
from fedmtl.errors import ConfigError
from fedmtl.protocol import Balancing

# Sums of squares over up to 10^4 float32 entries, taken in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-7}
CUTS = (slice(0, 10), slice(10, 16), slice(16, 22))


def probed(step, options: dict, cuts=CUTS, factors=None) -> list[Tensor | None]:
    """The statistics of a job of plain descent on these parts of the batch, step by step; the model moves."""
    balancer = build_balancer(Balancing("equal-probed", options))
    balancer.start_job(torch.Generator())
    found = []
    for cut in cuts:
        targets = [target[cut] for target in step.targets]
        result = balancer.gradients(step.network, step.inputs[cut], targets, factors)
        found.append(result.kernel_sizes)
        gradients = [*result.shared, *(gradient for head in result.heads for gradient in head)]
        torch._foreach_add_(step.network.values, gradients, alpha=-0.05)
    return found


def mean(found: list[Tensor | None]) -> Tensor:
    """What the trainer makes of the steps' statistics."""
    return torch.stack([value for value in found if value is not None]).mean(0)


def grams(step, count: int) -> Tensor:
    """Kernels over batches at the model as it is, by plain autograd, shape [tasks, count, count]."""
    rows = torch.stack([step.shared_gradients(cut) for cut in CUTS[:count]], dim=1).double()
    return rows @ rows.mT


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_the_trace_is_that_of_the_first_batches_at_the_model_that_was_sent(step, batches: int) -> None:
    # Where nothing is shared, the kernels are those of the representation.
    of = step.shared_gradients if step.network.shared else step.representation_gradients
    expected = torch.stack([of(cut).square().sum(1) for cut in CUTS[:batches]]).mean(0)
    found = probed(step, {"batches": batches})
    torch.testing.assert_close(mean(found), expected, **CLOSE)
    assert [value is not None for value in found] == [index < batches for index in range(3)]


@pytest.mark.parametrize("batches", [2, 3])
def test_denoised_is_the_mean_entry_off_the_diagonal(make_step, batches: int) -> None:
    step = make_step("mlp", batch=22)
    kernel = grams(step, batches)
    off = kernel.sum((1, 2)) - kernel.diagonal(dim1=1, dim2=2).sum(1)
    found = mean(probed(step, {"batches": batches, "statistic": "denoised"}))
    torch.testing.assert_close(found, (off / (batches * (batches - 1))).float(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_top_eig_is_the_largest_eigenvalue(make_step, batches: int) -> None:
    step = make_step("mlp", batch=22)
    top = torch.linalg.eigvalsh(grams(step, batches))[:, -1]
    found = mean(probed(step, {"batches": batches, "statistic": "top_eig"}))
    torch.testing.assert_close(found, top.float(), **CLOSE)


@pytest.mark.parametrize("statistic", ["trace", "top_eig"])
def test_sr_measures_the_representation(step, statistic: str) -> None:
    squares = torch.stack([step.representation_gradients(cut).square().sum(1) for cut in CUTS[:2]])
    expected = squares.mean(0) if statistic == "trace" else squares.amax(0)
    found = mean(probed(step, {"probe": "sr", "statistic": statistic}))
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("factors", [None, (0.5, 0.0, 2.0, 1.0)])
def test_probing_does_not_change_the_training(make_step, factors) -> None:
    one, other = make_step("lenet", batch=22), make_step("lenet", batch=22)
    probed(one, {"batches": 3}, factors=factors)
    plain = build_balancer(Balancing("equal"))
    for cut in CUTS:
        result = plain.gradients(other.network, other.inputs[cut], [target[cut] for target in other.targets], factors)
        gradients = [*result.shared, *(gradient for head in result.heads for gradient in head)]
        torch._foreach_add_(other.network.values, gradients, alpha=-0.05)
    for value, expected in zip(one.network.values, other.network.values, strict=True):
        assert torch.equal(value, expected)


def test_every_job_is_probed_anew(make_step) -> None:
    step = make_step("mlp", batch=22)
    balancer = build_balancer(Balancing("equal-probed", {"statistic": "denoised"}))

    def job() -> list[Tensor | None]:
        balancer.start_job(torch.Generator())
        parts = [[target[cut] for target in step.targets] for cut in CUTS]
        runs = zip(CUTS, parts, strict=True)
        return [balancer.gradients(step.network, step.inputs[cut], part, None).kernel_sizes for cut, part in runs]

    first, again = job(), job()
    assert first[2] is None
    assert all(torch.equal(one, other) for one, other in zip(first[:2], again[:2], strict=True))


@pytest.mark.parametrize("model", ["mlp", "lenet", "lstm"])
def test_traces_of_clients_add_to_the_trace_of_the_stacked_kernel(make_step, model: str) -> None:
    """Clients with 2, 1 and 2 of the batches and different tasks: sums of S_ci against one Gram of all rows."""
    cuts = [slice(start, start + 10) for start in range(0, 50, 10)]
    clients = {(0, 1, 2, 3): cuts[:2], (1, 3): cuts[2:3], (0, 1): cuts[3:]}
    totals, counts = torch.zeros(4), torch.zeros(4)
    whole = make_step(model, batch=50)
    rows: list[list[Tensor]] = [[] for _ in range(4)]
    for tasks, shards in clients.items():
        client = make_step(model, batch=50)
        client.model.load_state_dict(whole.model.state_dict())
        own = [client.network.tasks[task] for task in tasks]
        client.network = TaskNetwork(client.model, own)
        client.targets = [client.targets[task] for task in tasks]
        found = mean(probed(client, {"batches": 2}, shards))
        for task, trace in zip(tasks, found * len(shards), strict=True):
            totals[task] += trace
            counts[task] += len(shards)
            rows[task] += [whole.shared_gradients(cut)[task] for cut in shards]
    stacked = [torch.stack(task) for task in rows]
    kernels = [task @ task.T for task in stacked]
    assert [len(kernel) for kernel in kernels] == counts.tolist() == [4, 5, 2, 3]
    torch.testing.assert_close(totals, torch.stack([kernel.trace() for kernel in kernels]), **CLOSE)


def test_each_head_is_clipped_by_itself(make_step) -> None:
    raw = make_step("mlp").run("equal-probed")
    cut = make_step("mlp").run("equal-probed", head_clip=0.2)
    for one, other in zip(cut.heads, raw.heads, strict=True):
        norm = torch.cat([gradient.reshape(-1) for gradient in other]).norm()
        factor = min(1.0, 0.2 / norm.item())
        for clipped, gradient in zip(one, other, strict=True):
            torch.testing.assert_close(clipped, gradient * factor)
    assert all(torch.equal(one, other) for one, other in zip(cut.shared, raw.shared, strict=True))


def prepared(step, **options):
    """A balancer of which a job begins on all of the step's examples."""
    balancer = build_balancer(Balancing("equal-probed", options))
    balancer.start_job(torch.Generator())
    balancer.prepare(step.network, step.inputs, step.targets)
    return balancer


def test_kernels_are_those_of_aligned_heads(step) -> None:
    """And only the heads have moved, each to a loss that is no higher."""
    shared = [value.clone() for value in step.network.values[: len(step.network.shared)]]
    before = [loss.item() for loss in step.losses()]
    balancer = prepared(step, align=2, batches=1)
    after = [loss.item() for loss in step.losses()]
    # Token ids and pixels alike: whatever the representation, a step that raises a loss is taken back.
    assert all(new <= old * (1 + 1e-5) for new, old in zip(after, before, strict=True))
    assert after != before
    assert all(torch.equal(old, new) for old, new in zip(shared, step.network.values, strict=False))
    of = step.shared_gradients if step.network.shared else step.representation_gradients
    expected = of().square().sum(1)
    found = balancer.gradients(step.network, step.inputs, step.targets, None).kernel_sizes
    torch.testing.assert_close(found, expected, **CLOSE)


def test_without_alignment_a_job_begins_where_it_was_sent(make_step) -> None:
    step = make_step("mlp")
    before = [value.clone() for value in step.network.values]
    prepared(step)
    prepared(step, head_step="newton")
    assert all(torch.equal(old, new) for old, new in zip(before, step.network.values, strict=True))


def test_newton_steps_of_heads_leave_the_shared_gradient_as_it_is(make_step) -> None:
    plain = make_step("mlp").run("equal-probed")
    step = make_step("mlp")
    balancer = prepared(step, head_step="newton", damping=0.7)
    found = balancer.gradients(step.network, step.inputs, step.targets, None)
    assert all(torch.equal(one, other) for one, other in zip(found.shared, plain.shared, strict=True))
    metric = HeadMetric(step.network.predicted_representation(step.inputs), 0.7)
    for head, gradient, task, loss in zip(found.heads, plain.heads, step.network.tasks, plain.losses, strict=True):
        for one, other in zip(head, metric.step(gradient, reach(task, loss.item())), strict=True):
            assert torch.equal(one, other)
    clipped = prepared(step, head_step="newton", damping=0.7, head_clip=1e-3)
    for head in clipped.gradients(step.network, step.inputs, step.targets, None).heads:
        assert torch.cat([part.reshape(-1) for part in head]).norm() <= 1e-3 * (1 + 1e-5)


def test_newton_steps_need_a_prepared_job_and_heads_without_weights(make_step) -> None:
    with pytest.raises(ConfigError, match=r"set balancing\.head_weight = 'unweighted'"):
        build_balancer(Balancing("equal-probed", {"head_step": "newton", "head_weight": "weighted"}))
    with pytest.raises(RuntimeError, match=r"prepare\(\)"):
        make_step("mlp").run("equal-probed", head_step="newton")


def test_dropout_and_the_mode_of_the_model_are_left_alone(make_step) -> None:
    step = make_step("mlp")
    step.model.train()
    step.network.predicted_representation(step.inputs, batch=7)
    assert step.network.backbone.training
    together, apart = (step.network.predicted_representation(step.inputs, batch=size) for size in (1000, 7))
    torch.testing.assert_close(together, apart)
