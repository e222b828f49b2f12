"""Models and updates of a few numbers."""

import pytest
import torch

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Update
from fedmtl.toy import toy_layout, toy_model, toy_update


def test_a_layout_has_its_parts_one_after_the_other() -> None:
    layout = toy_layout(4, heads=(2, 3), buffers=1)
    assert layout == ParameterLayout((), slice(0, 4), (slice(4, 6), slice(6, 9)), slice(9, 10))
    assert (layout.size, layout.trainable) == (10, slice(0, 9))


def test_a_model_is_the_backbone_of_one_task_unless_said_otherwise() -> None:
    model = toy_model([1.0, 2.0, 3.0], version=4)
    assert (model.version, model.vector.dtype, model.vector.tolist()) == (4, torch.float32, [1.0, 2.0, 3.0])
    assert model.layout == toy_layout(3)
    assert len(model.layout.heads) == 1


def test_the_last_values_are_heads_and_buffers() -> None:
    model = toy_model(range(6), heads=(1, 2), buffers=1)
    assert model.layout == toy_layout(2, heads=(1, 2), buffers=1)
    with pytest.raises(ValueError, match="2 values: heads \\(1, 2\\) and 0 buffers take more"):
        toy_model([0.0, 1.0], heads=(1, 2))


def test_an_update_says_what_it_is_given() -> None:
    update = toy_update(3, [0.5, -1.0], base_version=2, job=1, terms={"loss": 0.25})
    assert isinstance(update, Update)
    assert (update.key, update.base_version, update.tasks) == ((3, 1), 2, (0,))
    assert (update.examples, update.steps, update.terms) == (10, 1, {"loss": 0.25})
    assert (update.delta.dtype, update.delta.tolist()) == (torch.float32, [0.5, -1.0])
