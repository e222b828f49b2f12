"""Clients that report their first losses, and whose learning rates and compression follow the scores made of them.

Down: the rate, in the settings; the rest as in :mod:`strategies.policies.loss_reports`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.core.kinds import Instruction
from strategies.core.ledger import Ledger
from strategies.policies.loss_reports import LossReports
from strategies.selectors.hetero_select import HeteroSelect
from strategies.selectors.score_compression import ScoreCompression


class ScoredReports(LossReports):
    """Clients with a higher score take larger steps, or keep more of their updates' entries (HeteRo-Select).

    Parameters
    ----------
    selector
        Has the scores S_i, scaled to 0..1.
    compression
        The options of the compressor that are a client's own; None for none.
    batches, mu
        See :class:`strategies.policies.loss_reports.LossReports`.
    rate_cap
        The cap of a client's learning rate, ``min(eta (1 + S_i), cap)``; None for the run's rate.

    Examples
    --------
    The scores are 0, 0.5 and 1. The rate rises with them up to its cap:

    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.policies.scored_reports import ScoredReports
    >>> from strategies.selectors import HeteroSelect
    >>> selector = HeteroSelect()
    >>> selector.free(range(3))
    >>> for client, loss in enumerate([0.5, 1.0, 1.5]):
    ...     selector.heard(toy_update(client, terms={"loss_mean": loss}))
    >>> chosen = selector.choose(3)
    >>> policy, settings = ScoredReports(selector, rate_cap=0.8), TrainSettings(learning_rate=0.5)
    >>> [policy.instruct(client, settings, toy_model([0.0]), Ledger()).settings.learning_rate for client in range(3)]
    [0.5, 0.75, 0.8]
    """

    def __init__(
        self,
        selector: HeteroSelect,
        compression: ScoreCompression | None = None,
        *,
        batches: int = 0,
        mu: float | None = None,
        rate_cap: float | None = None,
    ) -> None:
        super().__init__(batches=batches, mu=mu)
        self.rate_cap = rate_cap
        self._score_of = selector.score_of
        self._compression = compression

    def compression(self, client: int, version: int) -> Mapping[str, Any]:
        """The client's own options."""
        return {} if self._compression is None else self._compression(client, version)

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The settings, with the proximal term and the client's rate."""
        instruction = super().instruct(client, settings, model, ledger)
        if self.rate_cap is None:
            return instruction
        rate = min(settings.learning_rate * (1.0 + self._score_of(client)), self.rate_cap)
        return Instruction(dataclasses.replace(instruction.settings, learning_rate=rate), {}, {})
