"""Tasks are balanced by each client within its steps, and not across clients."""

from __future__ import annotations

from typing import Any

from fedmtl.errors import ConfigError
from fedmtl.protocol import Balancing
from strategies.core.kinds import TaskWeights


class LocalBalancing(TaskWeights):
    """Every client balances its tasks with one of the balancers of :mod:`fedmtl.balancing`.

    Parameters
    ----------
    name
        The balancer's name there.
    options
        The balancer's options.

    Examples
    --------
    The balancer and its options go down with every order, and no factors:

    >>> from strategies.task_weights import LocalBalancing
    >>> task_weights = LocalBalancing("cagrad", c=0.4)
    >>> task_weights.balancing, task_weights.weights()
    (Balancing(name='cagrad', options={'c': 0.4}), None)
    """

    def __init__(self, name: str, **options: Any) -> None:
        self._balancing = Balancing(name, options)

    @property
    def balancing(self) -> Balancing:
        """The balancer and its options."""
        return self._balancing

    def weights(self) -> None:
        """None: the server sends no factors."""
        return None


def NTKMTL(**options: Any) -> LocalBalancing:  # noqa: N802
    """NTKMTL: tasks are weighted so that their NTK spectra match (arXiv 2510.18258)."""
    return LocalBalancing("ntkmtl", **options)


def NTKMTLSR(**options: Any) -> LocalBalancing:  # noqa: N802
    """NTKMTL-SR: the same on the shared representation, at the cost of a single backward pass through the backbone."""
    return LocalBalancing("ntkmtl-sr", **options)


def refuse_balancing(task_weights: TaskWeights | None, strategy: str, reason: str) -> None:
    """Refuse task weights beside a strategy that balances tasks itself.

    Raises
    ------
    ConfigError
        If the weights are anything but equal; with the strategy's reason, a clause.
    """
    if task_weights is not None and (task_weights.balancing.name != "equal" or task_weights.weights() is not None):
        name = task_weights.balancing.name
        other = f"balancing.name = {name!r}" if name != "equal" else type(task_weights).__name__
        raise ConfigError(f"strategy.name = {strategy!r} with {other}: {reason}; set balancing.name = 'equal'")
