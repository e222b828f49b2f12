"""FedGELA's classifier (spec baselines, property 16)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel
from fedmtl.tasks import Task
from strategies.policies.simplex_classifier import SimplexClassifier, simplex

TASKS = (Task("digit", "classification", 10), Task("ink", "regression"), Task("pair", "classification", 2))


@given(classes=st.integers(2, 20), extra=st.integers(0, 40), seed=st.integers(0, 99))
def test_columns_have_unit_norm_and_equal_angles(classes: int, extra: int, seed: int) -> None:
    M = simplex(classes + extra, classes, seed, 0).double()
    cosines = M.T @ M
    expected = torch.full((classes, classes), -1.0 / (classes - 1)).double()
    expected.fill_diagonal_(1.0)
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-6)  # float32 entries


def start(tasks, hidden=(16, 12)) -> GlobalModel:
    model = build_model("mlp", {"hidden": hidden}, (6,), tasks, 0)
    layout = ParameterLayout.of(model)
    return GlobalModel(0, layout.pack(model), layout)


def test_heads_with_classes_become_simplices_and_all_else_stays() -> None:
    drawn = start(TASKS)
    model = SimplexClassifier(temperature=0.2).initial(drawn, 7)
    for task, classes in ((0, 10), (2, 2)):
        head = model.vector[model.layout.heads[task]]
        assert torch.equal(head[: classes * 12].view(classes, 12), simplex(12, classes, 7, task).T)
        assert head[classes * 12 :].abs().max() == 0
    for part in (model.layout.shared, model.layout.heads[1]):
        assert torch.equal(model.vector[part], drawn.vector[part])
    assert not torch.equal(simplex(12, 2, 7, 0), simplex(12, 2, 8, 0))


def test_more_classes_than_entries_are_refused() -> None:
    with pytest.raises(ConfigError, match="10 classes on a representation of 4"):
        SimplexClassifier(temperature=0.2).initial(start(TASKS, (16, 4)), 0)


def test_tasks_without_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs a task with classes"):
        SimplexClassifier(temperature=0.2).initial(start(TASKS[1:2]), 0)


def test_a_model_without_a_backbone_is_refused() -> None:
    model = build_model("linear", {}, (10,), TASKS, 0)
    layout = ParameterLayout.of(model)
    with pytest.raises(ConfigError, match="without a backbone"):
        SimplexClassifier(temperature=0.2).initial(GlobalModel(0, layout.pack(model), layout), 0)
