"""An aggregator that is given other updates than those that arrived."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor

from fedmtl.protocol import GlobalModel, Update
from strategies.core.kinds import Aggregator, Step
from strategies.core.ledger import Ledger


class ChangedUpdates(Aggregator):
    """Another aggregator takes the step, from changed updates; all else is as that one has it.

    Parameters
    ----------
    base
        Takes the step.

    Examples
    --------
    The least of one: updates are cut off at a size.

    >>> import dataclasses
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import GradientAggregator
    >>> from strategies.aggregators.changed import ChangedUpdates
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Uniform
    >>> class Clamped(ChangedUpdates):
    ...     def changed(self, update, step):
    ...         return dataclasses.replace(update, delta=update.delta.clamp(-1.0, 1.0))
    >>> step = Step.of(toy_model([0.0, 0.0]), [toy_update(0, [0.5, 50.0])])
    >>> Clamped(GradientAggregator(Uniform())).aggregate(step)
    (tensor([0.5000, 1.0000]), (1.0,))
    """

    no_rule = ""

    def __init__(self, base: Aggregator) -> None:
        self.base = base
        self.averages_models = base.averages_models

    @abstractmethod
    def changed(self, update: Update, step: Step) -> Update:
        """What the base is given in place of an update, which itself stays as it is."""

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """The base's step from the changed updates."""
        return self.base.aggregate(self._changed(step))

    def statistics(self, step: Step, proposed: Tensor, weights: Sequence[float]) -> Tensor:
        """The base's, from the changed updates."""
        return self.base.statistics(self._changed(step), proposed, weights)

    def _changed(self, step: Step) -> Step:
        return dataclasses.replace(step, updates=[self.changed(update, step) for update in step.updates])

    def model_for(self, client: int, model: GlobalModel, ledger: Ledger) -> GlobalModel:
        """What the base has the client train."""
        return self.base.model_for(client, model, ledger)

    def transfers(self, client: int, version: int, ledger: Ledger) -> tuple[int, int]:
        """How many models the base has travel."""
        return self.base.transfers(client, version, ledger)

    def own_models(self) -> Mapping[int, Tensor]:
        """The base's own models of clients."""
        return self.base.own_models()
