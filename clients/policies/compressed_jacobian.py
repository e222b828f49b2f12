"""The client's half of FedCMOO: plain training, and the tasks' gradients at the model that was sent, compressed.

Down: the constant ``rank``, r. Up: the vectors ``basis j``, of which only the layout's shared part is not 0, and for
each owned task i the terms ``coefficient i j``, j from 0 to r - 1, so that ``grad l_i`` is about
``sum_j coefficient_ij basis_j``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clients.policies.base import ClientHalf, Observed, Plan, Probe, Report
from clients.policies.step_rule import StepRule, Workbench
from fedmtl.balancing.passes import Passes
from fedmtl.protocol import TrainOrder, Update
from fedmtl.randomness import derive_seed


class CompressedJacobianHalf(ClientHalf):
    """Trains plainly, and reports the compressed gradients."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, and gradients on a batch of their size."""
        seed = derive_seed(order.seed, "jacobian")
        gradients = CompressedJacobian(order.constants["rank"], order.settings.batch_size, seed)
        return Plan(order.settings, step_rule=gradients)

    def report(
        self, order: TrainOrder, observed: Observed, plan: Plan, update: Update, losses: Sequence[Tensor]
    ) -> Report:
        """Basis and coefficients; the basis is filled up with zeros where the client owns fewer tasks than r."""
        rule = plan.step_rule
        assert isinstance(rule, CompressedJacobian)
        rank, layout = order.constants["rank"], order.base.layout
        vectors = {f"basis {j}": torch.zeros(layout.size) for j in range(rank)}
        for j, row in enumerate(rule.basis.cpu()):
            vectors[f"basis {j}"][layout.shared] = row
        rows = zip(update.tasks, rule.coefficients.tolist(), strict=False)
        terms = {f"coefficient {task} {j}": value for task, row in rows for j, value in enumerate(row)}
        return Report(terms, vectors)

    def extra_bytes_up(self, order: TrainOrder) -> int:
        """The basis: its vectors, of the backbone's size."""
        shared = order.base.layout.shared
        return int(4 * order.constants["rank"] * (shared.stop - shared.start))

    def task_bytes_up(self, order: TrainOrder, tasks: int) -> int:
        """The coefficients of each task."""
        return int(4 * order.constants["rank"] * tasks)

    def passes(self, order: TrainOrder, steps: int, examples: int, tasks: int) -> Passes:
        """A backward pass for each task, on one batch."""
        return Passes(forward=1, backward=tasks, heads=3)


class CompressedJacobian(StepRule):
    """Takes, before the first step, the gradients of the T tasks on one batch, and keeps their best rank-r form.

    With the rows ``g_i = grad_theta l_i`` in G, shape [T, P], and the r largest eigenvalues of ``G G^T`` with the
    eigenvectors U, shape [T, r], the form is ``U (U^T G)``: a basis of r vectors, and coefficients for each task.
    Training is plain.

    Parameters
    ----------
    rank
        r; T where that is less.
    batch_size
        Examples of the batch; all where the client has fewer.
    seed
        Of the draw of the batch.

    Attributes
    ----------
    basis, coefficients
        Shape [r, P] and [T, r] once the job began.
    """

    def __init__(self, rank: int, batch_size: int, seed: int) -> None:
        self.rank = rank
        self.batch_size = batch_size
        self.seed = seed
        self.basis = torch.zeros(0, 0)
        self.coefficients = torch.zeros(0, 0)

    def start(self, bench: Workbench) -> Tensor | None:
        """Take and compress the gradients."""
        draw = torch.randperm(len(bench.features), generator=torch.Generator().manual_seed(self.seed))
        chosen = draw[: self.batch_size].to(bench.features.device)
        network = bench.network
        representation, pullback = network.represent(bench.features[chosen])
        heads = network.head_pass(representation, [target[chosen] for target in bench.targets])
        slopes = network.task_gradients(heads.slopes)
        nothing = slopes.new_zeros(0)
        rows = [torch.cat([nothing, *(part.reshape(-1) for part in pullback(slope))]) for slope in slopes]
        G = torch.stack(rows)
        kernel = (G @ G.T).double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        U = torch.linalg.eigh(kernel).eigenvectors.flip(1)[:, : self.rank].to(G.dtype)
        self.basis, self.coefficients = U.T @ G, U
        return None
