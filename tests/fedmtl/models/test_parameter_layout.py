import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedmtl.models import MultiTaskModel, build_model
from fedmtl.parameters import ParameterLayout, cut, weighted_sum
from fedmtl.tasks import Task

TASKS = (Task("class", "classification", 10), Task("odd", "binary"), Task("ink", "regression"))


def with_batch_norm() -> MultiTaskModel:
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    return MultiTaskModel(backbone, 4 * 6 * 6, TASKS)


MODELS = {
    "linear": lambda: build_model("linear", {}, (1, 8, 8), TASKS, 0),
    "mlp": lambda: build_model("mlp", {}, (1, 8, 8), TASKS, 0),
    "lenet": lambda: build_model("lenet", {"channels": [3, 5], "hidden": [7]}, (1, 8, 8), TASKS, 0),
    "resnet18": lambda: build_model("resnet18", {"width": 4, "groups": 2}, (1, 8, 8), TASKS, 0),
    "lstm": lambda: build_model("lstm", {"hidden": 6}, (8,), TASKS, 0),
    "batch norm": with_batch_norm,
}
each_model = pytest.mark.parametrize("model", [pytest.param(build, id=name) for name, build in MODELS.items()])


def values(model: MultiTaskModel) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


@each_model
def test_the_vector_is_shared_then_heads_in_order_then_buffers_without_gaps(model):
    built = model()
    layout = ParameterLayout.of(built)
    assert layout.shared.start == 0
    stops = [layout.shared.stop, *(head.stop for head in layout.heads), layout.buffers.stop]
    starts = [*(head.start for head in layout.heads), layout.buffers.start, layout.size]
    assert stops == starts
    assert [entry.stop for entry in layout.entries[:-1]] == [entry.start for entry in layout.entries[1:]]
    width = built.heads["odd"].in_features
    assert [head.stop - head.start for head in layout.heads] == [(width + 1) * task.outputs for task in TASKS]
    assert layout.trainable.stop == sum(parameter.numel() for parameter in built.parameters())


@each_model
def test_packing_keeps_every_value_in_its_slice(model):
    built = model()
    layout = ParameterLayout.of(built)
    vector = layout.pack(built)
    assert vector.shape == (layout.size,)
    assert vector.dtype == torch.float32
    shared = [parameter.detach().flatten() for parameter in built.backbone.parameters()]
    assert torch.equal(vector[layout.shared], torch.cat([torch.empty(0), *shared]))
    for head, part in zip(built.heads.values(), layout.heads, strict=True):
        assert torch.equal(vector[part], torch.cat([parameter.detach().flatten() for parameter in head.parameters()]))


@each_model
def test_a_model_bound_to_a_vector_takes_its_values_and_gives_them_back(model):
    source, target = model(), model()
    layout = ParameterLayout.of(source)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn(parameter.shape))
    vector = layout.pack(source)
    layout.bind(target, vector)
    assert torch.equal(layout.pack(target), vector)
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in values(source).items())


@each_model
def test_writing_to_the_vector_writes_to_the_model_and_back(model):
    built = model()
    layout = ParameterLayout.of(built)
    vector = layout.pack(built)
    layout.bind(built, vector)
    vector.fill_(0.25)
    assert all((parameter == 0.25).all() for parameter in built.parameters())
    last = list(built.heads["ink"].parameters())[-1]
    with torch.no_grad():
        last.fill_(3.0)
    assert vector[layout.heads[2].stop - 1] == 3.0
    assert (vector == 3.0).sum() == last.numel()


@each_model
def test_a_bound_model_computes_what_it_did_before(model):
    built = model()
    layout = ParameterLayout.of(built)
    tokens = isinstance(built.backbone, nn.Module) and hasattr(built.backbone, "embedding")
    inputs = torch.randint(0, 80, (4, 8)) if tokens else torch.rand(4, 1, 8, 8)
    built.eval()
    before = built(inputs)
    layout.bind(built, layout.pack(built))
    for one, other in zip(before, built(inputs), strict=True):
        assert torch.equal(one, other)


def test_statistics_of_batch_norm_travel_and_its_counter_does_not():
    model = with_batch_norm()
    layout = ParameterLayout.of(model)
    names = {entry.name for entry in layout.entries}
    assert {"backbone.1.running_mean", "backbone.1.running_var"} <= names
    assert "backbone.1.num_batches_tracked" not in names
    assert layout.buffers.stop - layout.buffers.start == 8
    vector = layout.pack(model)
    layout.bind(model, vector)
    before = vector[layout.buffers].clone()
    model(torch.rand(16, 1, 8, 8))
    assert model.backbone[1].num_batches_tracked == 1
    assert not torch.equal(vector[layout.buffers], before)
    assert torch.equal(vector[layout.buffers][:4], model.backbone[1].running_mean)


def test_what_a_client_needs_is_the_backbone_its_heads_and_the_buffers():
    layout = ParameterLayout.of(with_batch_norm())
    shared = layout.shared.stop
    assert layout.size_for((0, 1, 2)) == layout.size
    assert layout.size_for((1,)) == shared + 145 + 8
    assert layout.size_for((2, 0)) == shared + 145 + 1450 + 8


@given(
    size=st.sampled_from([0, 1, 7, 1000, 1 << 20, (1 << 20) + 3]),
    weights=st.lists(st.floats(-4, 4, width=32), max_size=5),
    seed=st.integers(0, 1000),
)
def test_a_weighted_sum_is_the_sum_and_leaves_its_terms_alone(size, weights, seed):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(size, generator=generator)
    vectors = [torch.randn(size, generator=generator) for _ in weights]
    copies = [vector.clone() for vector in (start, *vectors)]
    result = weighted_sum(vectors, weights, start)
    exact = start.double() + sum(
        (weight * vector.double() for weight, vector in zip(weights, vectors, strict=True)), torch.zeros(())
    )
    # Six float32 roundings of terms below 20.
    torch.testing.assert_close(result, exact.float(), rtol=0, atol=2e-5)
    assert all(torch.equal(one, other) for one, other in zip((start, *vectors), copies, strict=True))


def test_a_weighted_sum_adds_its_terms_in_their_order_whatever_the_blocks():
    vectors = list(torch.randn(3, (1 << 21) + 5, generator=torch.Generator().manual_seed(0)))
    in_order = torch.zeros_like(vectors[0])
    for vector, weight in zip(vectors, (0.3, -1.7, 0.01), strict=True):
        in_order.add_(vector, alpha=weight)
    assert torch.equal(weighted_sum(vectors, (0.3, -1.7, 0.01), torch.zeros_like(in_order)), in_order)


def test_a_weighted_sum_without_a_start_is_the_one_from_zero():
    vectors = list(torch.randn(3, (1 << 20) + 5, generator=torch.Generator().manual_seed(1)))
    weights = (0.3, -1.7, 0.01)
    assert torch.equal(weighted_sum(vectors, weights), weighted_sum(vectors, weights, torch.zeros_like(vectors[0])))


def test_a_cut_is_the_slice():
    vector = torch.arange(6.0)
    for part in (slice(0, 6), slice(2, 5), slice(3, 3), slice(0, 0)):
        assert torch.equal(cut(vector, part), vector[part])
    assert cut(torch.ones(0), slice(0, 0)).numel() == 0


def test_a_weighted_sum_needs_a_weight_for_each_vector():
    with pytest.raises(ValueError, match="shorter"):
        weighted_sum([torch.ones(3), torch.ones(3)], [1.0], torch.zeros(3))
