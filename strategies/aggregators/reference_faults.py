"""Faults for their study: what is aggregated is not what was uploaded, as in the code of FedQS's authors.

Its clients write a job's result, and what they say of it, when the job begins; its queue only holds where to look.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from fedmtl.components import Param
from fedmtl.protocol import Update
from fedmtl.state import kept_update, update_state
from strategies.aggregators.changed import ChangedUpdates
from strategies.core.kinds import Aggregator, Step
from strategies.core.ledger import Ledger
from strategies.core.part import parts_within

Updates = Annotated[
    Literal["snapshot", "ref_overwrite"],
    Param("what is applied: the update that waited, or what its client has begun to train since (authors' code)"),
]
CarryMeta = Annotated[
    Literal["with_update", "global_arrays"],
    Param("feedback bit and similarity: the update's own, or those of its client's newest job (authors' code)"),
]


class ReadLate(ChangedUpdates):
    """Another aggregator is given, in place of each update, what is read when the server step is taken.

    Parameters
    ----------
    base
        Makes the step.
    """

    @abstractmethod
    def on_outcome_known(self, update: Update, ledger: Ledger) -> None:
        """A client began a job that will end with this update (:mod:`strategies.core.outcomes`)."""


class Overwritten(ReadLate):
    """Updates that wait are overwritten by what their clients train next (a fault of FedQS's authors' code).

    What is read is what the client has begun to train since its update was uploaded, if it has. An update that is not
    aggregated before its client's next order is sent is lost; the next one is applied in its place, and once more in
    its own. With the authors' 100 clients and K = 10 that befalls 76.7 % of the updates, and 12.6 % are applied a
    second time.

    The base sees the content's version; counts and the recorded staleness are those of the update that waited. What is
    not finite is not written.

    Examples
    --------
    While an update waits, its client begins the next job, whose outcome is applied in its place:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import GradientAggregator, Overwritten
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import Uniform
    >>> waits, next_one = toy_update(0, [1.0, 1.0]), toy_update(0, [5.0, 5.0], job=1)
    >>> step = Step.of(toy_model([0.0, 0.0]), [waits])
    >>> aggregator = Overwritten(GradientAggregator(Uniform()))
    >>> for begun in (waits, next_one):
    ...     aggregator.on_outcome_known(begun, step.ledger)
    >>> aggregator.aggregate(step)
    (tensor([5., 5.]), (1.0,))
    """

    needs = MappingProxyType({"exact-updates": "what a client is still training has not been compressed yet"})
    only_simulated = "updates = 'ref_overwrite' applies what clients have not sent yet"

    def __init__(self, base: Aggregator) -> None:
        super().__init__(base)
        self._reads_bases = any(part.needs_bases for part in parts_within(base))
        self._files: dict[int, Update] = {}

    def on_outcome_known(self, update: Update, ledger: Ledger) -> None:
        """Write the client's file."""
        if update.failure is None and torch.isfinite(update.delta).all():
            self._files[update.client] = update

    def changed(self, update: Update, step: Step) -> Update:
        """The update with what its client's file holds."""
        file = self._files.get(update.client, update)
        layout, version = step.model.layout, file.base_version
        known = version == step.model.version or version in step.bases or version in step.statistics
        reads = self._reads_bases or layout.buffers.start < layout.buffers.stop
        if file.job == update.job or (reads and not known):
            return update
        return dataclasses.replace(update, delta=file.delta, base_version=file.base_version)

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """The base's step from the files; a file whose own job was applied is read no more, and is dropped."""
        result = super().aggregate(step)
        for client, job in [(update.client, update.job) for update in step.updates]:
            if client in self._files and self._files[client].job == job:
                del self._files[client]
        return result

    def state_dict(self) -> dict[str, Any]:
        """The clients' files, an update each."""
        return {"files": [update_state(file) for file in self._files.values()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        files = [kept_update(entry) for entry in state["files"]]
        self._files = {file.client: file for file in files}


class Meta(NamedTuple):
    """What a client's newest job says: its number, the version it began with, the feedback bit and the similarity."""

    job: int
    version: int
    feedback: bool
    similarity: float | None


class NewestMeta(ReadLate):
    """Feedback bits and similarities are those of the clients' newest jobs (a fault of FedQS's authors' code).

    What is read is what a client's newest job says, finished or not. The authors' code writes both into one array for
    all clients when a job begins, and every server step clears all the bits. So a bit counts only if the client began
    its newest job after the last step, which as a rule is not the job that is being aggregated. With their 100 clients
    and K = 10, and updates that are overwritten, 48.7 % of the updates can have a bit. The similarities of jobs that
    have begun enter the mean, too.

    Examples
    --------
    The first update has the feedback bit, but its client has begun another job, which has none:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import GradientAggregator, NewestMeta
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import FedQSWeights, Uniform
    >>> updates = [toy_update(0, terms={"feedback": 1.0, "similarity": 1.0}), toy_update(1)]
    >>> step = Step.of(toy_model([0.0, 0.0]), updates)
    >>> right = GradientAggregator(FedQSWeights(Uniform(), phi=4.0))
    >>> faulty = NewestMeta(right)
    >>> for begun in (*updates, toy_update(0, job=1)):
    ...     faulty.on_outcome_known(begun, step.ledger)
    >>> [round(p, 3) for p in right.aggregate(step)[1]], faulty.aggregate(step)[1]
    ([0.745, 0.255], (0.5, 0.5))
    """

    only_simulated = "carry_meta = 'global_arrays' counts what clients have not sent yet"

    def __init__(self, base: Aggregator) -> None:
        super().__init__(base)
        self._newest: dict[int, Meta] = {}

    def on_outcome_known(self, update: Update, ledger: Ledger) -> None:
        """Keep what the client's newest job says, which no earlier job overwrites."""
        known = self._newest.get(update.client)
        if known is None or known.job != update.job:
            self._newest[update.client] = Meta(
                update.job, update.base_version, update.terms.get("feedback") == 1.0, update.terms.get("similarity")
            )
            ledger.received(update)

    def changed(self, update: Update, step: Step) -> Update:
        """The update with what the arrays say."""
        meta = self._newest[update.client]
        terms = {name: value for name, value in update.terms.items() if name not in ("feedback", "similarity")}
        if meta.feedback and meta.version == step.model.version:
            terms["feedback"] = 1.0
        if meta.similarity is not None:
            terms["similarity"] = meta.similarity
        return dataclasses.replace(update, terms=terms)

    def state_dict(self) -> dict[str, Any]:
        """What each client's newest job says."""
        return {"newest": [[client, *meta] for client, meta in self._newest.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._newest = {int(client): Meta(*meta) for client, *meta in state["newest"]}


def with_faults(
    aggregator: Aggregator, *, updates: Updates = "snapshot", carry_meta: CarryMeta = "with_update"
) -> Aggregator:
    """The aggregator with the faults that these options ask for, as it is if they ask for none.

    What waits in the queue is exchanged first, and what is said of it then.
    """
    if carry_meta == "global_arrays":
        aggregator = NewestMeta(aggregator)
    return Overwritten(aggregator) if updates == "ref_overwrite" else aggregator
