"""The gradients of all tasks at the model that was sent, compressed."""

from __future__ import annotations

import torch
from torch import Tensor

from clients.policies.step_rule import Technique, Workbench


class CompressedJacobian(Technique):
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
