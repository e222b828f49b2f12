"""A balancer on gradients that are given: it sees just these, and remembers from step to step."""

import pytest
import torch
from torch import Tensor

from fedmtl.balancing import BALANCERS, balance_gradients, build_balancer
from fedmtl.balancing.adatask import AdaTask
from fedmtl.balancing.dwa import DWA
from fedmtl.balancing.equal import Equal
from fedmtl.balancing.jacobian_method import JacobianMethod
from fedmtl.protocol import Balancing

GRADIENTS = torch.tensor([[3.0, 4.0, 0.0], [-1.0, 0.0, 0.5], [0.1, -0.2, 0.2]], dtype=torch.float64)
LOSSES = torch.tensor([2.0, 0.5, 1.5], dtype=torch.float64)


class Seen(JacobianMethod):
    """Keeps what it is given."""

    def combine(self, rows: Tensor, losses: Tensor, sound: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        self.rows, self.losses, self.factors = rows, losses, factors
        return rows[0], factors


def test_a_balancer_sees_the_given_gradients_losses_and_factors_to_the_bit():
    balancer = Seen("unweighted", 0.0)
    step = balance_gradients(balancer, GRADIENTS, LOSSES, task_weights=[1.0, 0.0, 2.0])
    assert torch.equal(balancer.rows, GRADIENTS)
    assert torch.equal(balancer.losses, LOSSES)
    assert balancer.factors.tolist() == [1.0, 0.0, 2.0]
    assert [gradient.shape for gradient in step.shared] == [(3,)]


@pytest.mark.parametrize("name", [name for name in BALANCERS if name not in ("graddrop", "adatask")])
def test_every_balancer_weighs_the_given_gradients(name):
    """But those whose direction is no weighted sum: signs and moments."""
    step = balance_gradients(build_balancer(Balancing(name)), GRADIENTS, LOSSES)
    weights = torch.ones_like(LOSSES) if step.weights is None else step.weights
    # Three rows of a third each are added where the method cuts the batch, so the last bits may differ.
    torch.testing.assert_close(step.shared[0], weights @ GRADIENTS, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(step.losses, LOSSES, rtol=1e-12, atol=0)


def test_lists_are_taken_as_numbers_of_torchs_default_type_and_losses_are_ones():
    step = balance_gradients(Equal(), [[3, 4], [1, 0]])
    assert step.shared[0].tolist() == [4.0, 4.0]
    assert step.shared[0].dtype == torch.get_default_dtype()
    assert step.losses.tolist() == [1.0, 1.0]


def test_steps_belong_to_one_job_until_another_starts():
    balancer = DWA(window=1)

    def weights(losses: list[float]) -> list[float]:
        found = balance_gradients(balancer, [[1.0, 0.0], [0.0, 1.0]], losses).weights
        assert found is not None
        return found.tolist()

    weights([1.0, 1.0])
    weights([0.9, 0.1])
    slow, fast = weights([0.8, 0.1])
    assert slow > fast
    balancer.start_job(torch.Generator())
    assert weights([0.8, 0.1]) == [1.0, 1.0]


def test_the_moments_of_a_task_go_on_through_the_steps():
    """A gradient that turned round has the mean ``(0.9 - 1) 0.1 / (1 - 0.9^2)`` and the mean square 1."""
    balancer = AdaTask()
    ones = torch.ones(2, 1, dtype=torch.float64)
    balance_gradients(balancer, ones)
    turned = balance_gradients(balancer, ones * torch.tensor([[-1.0], [1.0]])).shared[0]
    assert turned.item() == pytest.approx(1 - 0.01 / 0.19, abs=1e-6)


@pytest.mark.parametrize(
    ("gradients", "losses", "message"),
    [
        ([[1.0, 0.0]], [1.0, 2.0], r"\[1, 2\] and losses \[2\]"),
        ([1.0, 0.0], None, r"expected \[tasks, P\]"),
        ([[1.0, 0.0]], [0.0], "above 0"),
        ([[1.0, 0.0]], [float("nan")], "above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(gradients, losses, message):
    with pytest.raises(ValueError, match=message):
        balance_gradients(Equal(), gradients, losses)
