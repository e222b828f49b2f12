import pytest
import torch

from fedmtl.balancing import TaskNetwork
from fedmtl.components import check_options
from fedmtl.errors import ConfigError
from fedmtl.models import MODELS, MultiTaskModel, build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.tasks import Task

TASKS = (Task("class", "classification", 10), Task("odd", "binary"), Task("ink", "regression"))

# Small enough to be quick, each on a shape it must take.
CASES = {
    "linear on rows": ("linear", {}, (5,)),
    "linear on images": ("linear", {}, (1, 8, 8)),
    "mlp on rows": ("mlp", {}, (64,)),
    "mlp on images": ("mlp", {"hidden": [7, 6, 5]}, (1, 8, 8)),
    "lenet on 1x28x28": ("lenet", {}, (1, 28, 28)),
    "lenet on 3x32x32": ("lenet", {"channels": [6, 16], "hidden": [120, 84], "padding": 0}, (3, 32, 32)),
    "lenet on 1x8x8": ("lenet", {}, (1, 8, 8)),
    "lenet on 1x12x12": ("lenet", {}, (1, 12, 12)),
    "lenet on 1x8x12": ("lenet", {}, (1, 8, 12)),
    "lenet on 1x4x4": ("lenet", {}, (1, 4, 4)),
    "resnet18 on 3x32x32": ("resnet18", {"width": 8, "groups": 4}, (3, 32, 32)),
    "resnet18 on 1x8x8": ("resnet18", {"width": 8, "groups": 8}, (1, 8, 8)),
    "lstm": ("lstm", {}, (12,)),
}


def inputs_for(name: str, shape: tuple[int, ...], batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if name == "lstm":
        return torch.randint(0, 80, (batch, *shape), generator=generator)
    return torch.rand(batch, *shape, generator=generator)


def parameters(model: MultiTaskModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("case", CASES)
def test_every_task_gets_the_outputs_it_asks_for(case):
    name, options, shape = CASES[case]
    outputs = build_model(name, options, shape, TASKS, 0)(inputs_for(name, shape))
    assert [tuple(output.shape) for output in outputs] == [(3, 10), (3, 1), (3, 1)]
    assert all(output.isfinite().all() for output in outputs)


def test_every_model_is_tried():
    assert {name for name, _, _ in CASES.values()} == set(MODELS)


@pytest.mark.parametrize("case", CASES)
def test_examples_of_a_batch_do_not_see_each_other(case):
    name, options, shape = CASES[case]
    model = build_model(name, options, shape, TASKS, 0)
    inputs = inputs_for(name, shape)
    together, alone = model(inputs), model(inputs[1:2])
    for many, one in zip(together, alone, strict=True):
        # Kernels for other batch sizes sum in other orders.
        torch.testing.assert_close(many[1:2], one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_initial_values_depend_on_the_seed_alone(case):
    name, options, shape = CASES[case]
    torch.manual_seed(1)
    first = build_model(name, options, shape, TASKS, 7).state_dict()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = build_model(name, options, shape, TASKS, 7).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = build_model(name, options, shape, TASKS, 8).state_dict()
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_linear_shares_nothing():
    model = build_model("linear", {}, (1, 8, 8), TASKS, 0)
    assert list(model.backbone.parameters()) == []
    inputs = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(model(inputs)[1], model.heads["odd"](inputs.flatten(1)))


def test_mlp_defaults_to_the_digits_backbone():
    model = build_model("mlp", {}, (64,), TASKS, 0)
    layers = [layer for layer in model.backbone if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(64, 64), (64, 32)]
    assert (model.backbone(torch.randn(20, 64)) >= 0).all()  # ReLU after the last layer, too


@pytest.mark.parametrize(
    ("name", "options", "shape", "expected"),
    [
        ("lenet", {}, (1, 28, 28), 1_663_370),  # the CNN of McMahan et al.
        ("lenet", {"channels": [6, 16], "hidden": [120, 84], "padding": 0}, (3, 32, 32), 62_006),  # LeNet-5 on CIFAR
        (
            "resnet18",
            {},
            (3, 32, 32),
            11_173_962,
        ),  # the usual ResNet-18 for CIFAR-10; group norm has as many as batch norm
    ],
)
def test_known_networks_have_their_known_sizes(name, options, shape, expected):
    assert parameters(build_model(name, options, shape, TASKS[:1], 0)) == expected


def test_resnet18_keeps_no_batch_statistics():
    assert list(build_model("resnet18", {"width": 8, "groups": 8}, (3, 8, 8), TASKS, 0).buffers()) == []


def test_lstm_represents_a_text_by_the_last_hidden_states_of_both_layers():
    model = build_model("lstm", {}, (9,), (Task("next", "classification", 80),), 0)
    assert parameters(model) == 80 * 8 + 4 * 128 * (8 + 128 + 2) + 4 * 128 * (128 + 128 + 2) + (256 + 1) * 80
    tokens = inputs_for("lstm", (9,))
    recurrent = model.backbone.lstm
    lower = torch.nn.LSTM(8, 128, batch_first=True)
    upper = torch.nn.LSTM(128, 128, batch_first=True)
    for layer, single in enumerate((lower, upper)):
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(single, f"{kind}_l0").data = getattr(recurrent, f"{kind}_l{layer}").data
    hidden, (last_of_lower, _) = lower(model.backbone.embedding(tokens))
    _, (last_of_upper, _) = upper(hidden)
    expected = torch.cat([last_of_lower[0], last_of_upper[0]], dim=1)
    torch.testing.assert_close(model.backbone(tokens), expected)


@pytest.mark.parametrize(
    ("name", "shape", "complaint"),
    [
        ("lenet", (64,), r"images of shape \(channels, height, width\).*\(64,\).*'mlp'"),
        ("lenet", (8, 8), r"\(8, 8\)"),
        ("lenet", (1, 3, 8), r"at least 4x4, not 3x8"),
        ("resnet18", (784,), r"'resnet18' reads images"),
        ("lstm", (1, 28, 28), r"sequences of tokens.*\(1, 28, 28\).*'lenet'"),
        ("lstm", (0,), r"sequences of tokens"),
        ("mlp", (0,), r"at least one feature"),
        ("linear", (), r"at least one feature"),
    ],
)
def test_a_model_refuses_examples_it_cannot_take(name, shape, complaint):
    with pytest.raises(ConfigError, match=complaint):
        build_model(name, {}, shape, TASKS, 0)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_tokens_are_no_features(name):
    model = build_model(name, {}, (5,), TASKS, 0)
    with pytest.raises(ConfigError, match=r"int64.*'lstm'"):
        model(torch.zeros(2, 5, dtype=torch.int64))


def test_features_are_no_tokens():
    with pytest.raises(ConfigError, match=r"float32.*'mlp'"):
        build_model("lstm", {}, (5,), TASKS, 0)(torch.zeros(2, 5))


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("mpl", {}, "model.name = 'mpl' is unknown.*'mlp'"),
        ("mlp", {"hiden": [3]}, "model.hiden is not a key of 'mlp'.*'hidden'"),
        ("linear", {"hidden": [3]}, "known: none"),
        ("mlp", {"hidden": []}, "model.hidden is empty.*'linear'"),
        ("mlp", {"hidden": [8, 0]}, r"model.hidden = \[8, 0\]"),
        ("lenet", {"channels": [3]}, r"model.channels = \[3\]: expected 2 positive numbers"),
        ("lenet", {"hidden": []}, "model.hidden is empty"),
        ("resnet18", {"width": 10, "groups": 4}, "model.groups = 4 does not divide model.width = 10"),
    ],
)
def test_wrong_options_are_named(name, options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        build_model(name, options, (1, 8, 8), TASKS, 0)


def test_options_may_come_from_a_file():
    options = check_options(MODELS["mlp"], {"hidden": [12, 6]}, "model", "mlp")
    assert build_model("mlp", options, (4,), TASKS, 0).heads["odd"].in_features == 6


@pytest.mark.parametrize(("names", "complaint"), [(("a", "a"), "'a' occurs twice"), ((), "at least one")])
def test_tasks_need_names_of_their_own(names, complaint):
    with pytest.raises(ConfigError, match=complaint):
        build_model("linear", {}, (4,), [Task(name, "binary") for name in names], 0)


def test_a_task_may_have_any_name_and_its_head_lies_under_a_safe_one():
    names = ("a.b", "a-b", "a/b", "keys", "training", "type", "_modules", "", "\x1b[2J", "x" * 300, "ink")
    tasks = [Task(name, "binary") for name in names]
    model = build_model("linear", {}, (4,), tasks, 0)
    assert list(model.heads) == [task.key for task in tasks]
    assert len(model(torch.zeros(2, 4))) == len(names)
    layout = ParameterLayout.of(model)
    assert layout.entries[-1].name == "heads.ink.bias"
    assert all(entry.name.count(".") == 2 for entry in layout.entries)
    network = TaskNetwork(model, tasks)
    assert network.outputs == (1,) * len(names)


def test_a_name_that_is_safe_is_kept_so_that_parameters_keep_their_names():
    every = ["digit", "left digit", "5_o_Clock_Shadow", "task-0", "höhe"]
    assert [Task(name, "binary").key for name in every] == every
