"""What a balancer makes of gradients that are given: for trying a method out, without a model or data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedmtl.balancing.base import Balancer, StepGradients
from fedmtl.balancing.network import TaskNetwork
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.tasks import Task


def balance_gradients(
    balancer: Balancer,
    gradients: Tensor | Sequence[Sequence[float]],
    losses: Tensor | Sequence[float] | None = None,
    task_weights: Sequence[float] | None = None,
) -> StepGradients:
    """One step of a balancer on tasks that have these gradients and losses.

    The tasks are ``l_i + g_i . theta``, met at ``theta = 0``: linear heads with the weights g_i on a representation
    theta that is the same for every example. So the balancer does all that it does on a network, and what it learned
    from earlier steps counts. A call is a step of the job that is running; ``balancer.start_job(generator)`` begins
    another.

    Parameters
    ----------
    balancer
        Any balancer.
    gradients
        g_i: each task's gradient with respect to the shared parameters, shape [tasks, P].
    losses
        l_i: each task's loss, shape [tasks], above 0; None for ones.
    task_weights
        The server's factor for each task; None for ones.

    Returns
    -------
    StepGradients
        Its `shared` is one tensor of shape [P].

    Raises
    ------
    ValueError
        If there are not as many losses as gradients, or a loss is not above 0.

    Examples
    --------
    Two tasks in conflict, of which one has a gradient that is ten times as long. In their sum the other one is lost:
    the step (a descent along ``-shared``) raises its loss. NTKMTL makes them equally long.

    >>> import torch
    >>> from fedmtl.balancing import balance_gradients, build_balancer
    >>> from fedmtl.protocol import Balancing
    >>> gradients = torch.tensor([[10.0, 0.0], [-0.6, 0.8]])
    >>> for name in ("equal", "ntkmtl", "mgda"):
    ...     step = balance_gradients(build_balancer(Balancing(name)), gradients)
    ...     name, (gradients @ step.shared[0]).round(decimals=2)  # how fast each loss falls
    ('equal', tensor([94., -5.]))
    ('ntkmtl', tensor([28.4300,  2.8400]))
    ('mgda', tensor([0.5700, 0.5700]))
    """
    rows = torch.as_tensor(gradients)
    rows = rows if rows.is_floating_point() else rows.to(torch.get_default_dtype())
    sizes = torch.ones(len(rows)) if losses is None else torch.as_tensor(losses)
    if rows.dim() != 2 or sizes.shape != rows.shape[:1]:
        raise ValueError(
            f"gradients have shape {list(rows.shape)} and losses {list(sizes.shape)}: expected [tasks, P] and [tasks]"
        )
    if not bool((sizes > 0).all()):
        raise ValueError(f"losses = {sizes.tolist()}: expected each above 0")
    # The derivative of |o - 0| is 1 where the output o is positive, so a head's weights are its task's gradient.
    tasks = [Task(f"{i}", "regression", loss="absolute_error") for i in range(len(rows))]
    model = MultiTaskModel(_Point(rows.shape[1]), rows.shape[1], tasks).to(rows)
    network = TaskNetwork(model, tasks)
    with torch.no_grad():
        for (weight, bias), row, size in zip(network.heads, rows, sizes, strict=True):
            weight.copy_(row)
            bias.fill_(size)
    batch = balancer.least_batch
    return balancer.gradients(network, rows.new_zeros(batch, 1), [rows.new_zeros(batch)] * len(rows), task_weights)


class _Point(nn.Module):
    """The same representation, 0 and of shape [P], for every example; it is the parameter itself."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.zeros(size))

    def forward(self, inputs: Tensor) -> Tensor:
        """The point itself for every example, shape [batch, P]."""
        return self.point.expand(len(inputs), -1)
