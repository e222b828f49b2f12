"""Balancers that weigh the tasks by the Gram matrix of their gradients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from fedmtl.balancing.jacobian_method import JacobianMethod


class GramWeighting(JacobianMethod):
    """``d = sum_i w_i g_i`` with w from ``M = J J^T``, shape [K, K].

    A task without a gradient (zero to the last bit) has nothing to be weighed by: the method sees the others only, and
    its weight is 1.

    Examples
    --------
    A method that makes all gradients equally long:

    >>> from fedmtl.balancing import balance_gradients
    >>> from fedmtl.balancing.gram_weighting import GramWeighting
    >>> class UnitLength(GramWeighting):
    ...     def weigh(self, gram, losses, tasks):
    ...         return gram.diagonal().rsqrt()
    >>> balancer = UnitLength(head_weight="unweighted", clip=0.0)
    >>> balance_gradients(balancer, [[3.0, 4.0], [0.0, 0.1]]).weights
    tensor([ 0.2000, 10.0000])
    """

    @abstractmethod
    def weigh(self, gram: Tensor, losses: Tensor, tasks: Sequence[int]) -> Tensor:
        """A weight for each of these tasks, finite, shape [k].

        Parameters
        ----------
        gram
            M of the tasks that have a gradient, float64 on the CPU, shape [k, k], with a positive diagonal; k >= 1.
        losses
            Their losses, float64 on the CPU, shape [k].
        tasks
            Their positions among the client's tasks.
        """

    def combine(self, rows: Tensor, losses: Tensor, sound: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sum of the tasks' gradients, and the weights."""
        weights = self._weights((rows @ rows.T).double().cpu(), losses.double().cpu(), sound.cpu())
        weights = weights.to(rows) * factors
        return weights @ rows, weights

    def _weights(self, gram: Tensor, losses: Tensor, sound: Tensor) -> Tensor:
        live = gram.diagonal() > 0
        weights = sound.double()
        if bool(live.all()):
            return self.weigh(gram, losses, range(len(gram)))
        if bool(live.any()):
            index = live.nonzero()[:, 0]
            weights[index] = self.weigh(gram[index][:, index], losses[index], index.tolist())
        return weights
