"""Faults of the code of FedQS's authors on the client's side."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clients.policies.reference_faults import first_of_each_class, tensor_angles

WHOLE = [slice(0, None)]


@given(seed=st.integers(0, 1000))
def test_angles_of_shifted_tensors_hardly_tell_directions_apart(seed: int) -> None:
    """Independent directions come out at 15 to 33 degrees and opposite ones at 22 to 47 (section 10, defect 4)."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(500, generator=generator), torch.randn(500, generator=generator)
    assert 15 < tensor_angles(a, b, WHOLE) < 33
    assert 22 < tensor_angles(a, -a, WHOLE) < 47
    assert tensor_angles(a, 3 * a + 50, WHOLE) == pytest.approx(0.0, abs=0.1)


def test_tensors_count_the_same_whatever_their_size_and_one_zero_leaves_a_tensor_out() -> None:
    a = torch.tensor([1.0, 2.0, 1.0, 3.0, 3.0, 3.0])
    b = torch.tensor([2.0, 1.0, 1.0, 3.0, 3.0, 3.0])
    parts = [slice(0, 2), slice(2, 6)]
    assert tensor_angles(a, b, parts) == pytest.approx((90.0 + 0.0) / 2)
    b[5] = 0.0
    assert tensor_angles(a, b, parts) == pytest.approx(90.0)
    assert tensor_angles(a, b, parts[1:]) is None


def test_constant_tensors_are_taken_for_ones() -> None:
    a, b = torch.full((4,), -2.0), torch.tensor([1.0, 1.0, 1.0, 2.0])
    assert tensor_angles(a, a, WHOLE) == 0.0
    assert tensor_angles(a, b, WHOLE) == pytest.approx(60.0)  # (1, 1, 1, 1) and (0, 0, 0, 1)


def test_the_first_of_each_class_are_counted_in_the_examples_order() -> None:
    labels = torch.tensor([2, 0, 2, 2, 1, 0, 2])
    assert first_of_each_class(labels, 2).tolist() == [True, True, True, False, True, True, False]
    assert first_of_each_class(labels.float(), 1).tolist() == [True, True, False, False, True, False, False]
