"""HeteRo-Select: a score of usefulness, diversity, fairness and time since the last choice.

arXiv 2508.06692 (its second version, after the authors' code). For the K clients of a round, drawn without replacement
with probabilities proportional to ``exp(S_i / temperature)``:

    S_i  = norm(V_i) + 0.3 D_i + 0.2 F_i + 0.2 St_i          norm(x) = (x - min x) / (max x - min x)
    V_i  : mean loss on the client's first batches           D_i  = clip(1 - cos(g_i, g_bar), 0, 1)
    F_i  = clip(1 - c_i / mean c, -1, 1)                     St_i = norm(ln(1 + rounds since the last choice) / 2)

g_i is the client's last update, shape [P], and g_bar the mean of the updates that came in the same round. A client of
which nothing is known yet has norm(V) = 1, so that it is tried, and D = 0. c_i is how often i was chosen, as in the
authors' code, or its number of examples. norm(S_i) also serves :class:`ScoreWeights`, learning rates and
:mod:`strategies.selectors.score_compression`.

Differences from the authors' code: g_bar there is a running mean of the server's steps, a client of which nothing is
known has D = 0.5, S is divided by its range before the softmax, and the temperature falls to a half during the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from fedmtl.components import Param
from fedmtl.protocol import Update
from strategies.selectors.base import Floats, Rows, Selector, mean_loss, normalised, sample

_CODE = "authors' code"

Diversity = Annotated[float, Param("factor of the diversity in a score", ge=0, source=_CODE)]
Fairness = Annotated[float, Param("factor of the fairness in a score", ge=0, source=_CODE)]
FairBy = Annotated[
    Literal["choices", "examples"],
    Param("fairness: for those chosen rarely, or with few examples", source=_CODE),
]
SinceChosen = Annotated[float, Param("factor of the time since the last choice", ge=0, source=_CODE)]
ScoreTemperature = Annotated[float, Param("temperature of the softmax", gt=0, source=_CODE)]


class HeteroSelect(Selector):
    """Clients drawn by a score of usefulness, diversity, fairness and time since the last choice (HeteRo-Select).

    `diversity`, `fairness` and `staleness` are the factors of D, F and St; `fair_by` says what c counts.

    Attributes
    ----------
    mean_score
        Mean of the scores, scaled to 0..1, of the clients of the last round.

    Examples
    --------
    Of three clients that were never chosen, the one with the largest loss is drawn with the largest probability:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.selectors import HeteroSelect
    >>> selector = HeteroSelect()
    >>> selector.free(range(3))
    >>> for client, loss in enumerate([0.5, 1.0, 1.5]):
    ...     selector.heard(toy_update(client, terms={"loss_mean": loss}))
    >>> selector.probabilities(selector.candidates.idle).round(2).tolist()
    [0.19, 0.31, 0.51]
    >>> [selector.score_of(client) for client in range(3)]
    [0.0, 0.5, 1.0]
    """

    purpose: ClassVar[str] = "HeteroSelect"

    def __init__(
        self,
        *,
        diversity: Diversity = 0.3,
        fairness: Fairness = 0.2,
        fair_by: FairBy = "choices",
        staleness: SinceChosen = 0.2,
        temperature: ScoreTemperature = 1.0,
    ) -> None:
        super().__init__(loss=0.0, diversity=0.0, examples=0.0, chosen=0.0, choices=0.0, score=1.0)
        self.fair_by = fair_by
        self.diversity = diversity
        self.fairness = fairness
        self.staleness = staleness
        self.temperature = temperature
        self.mean_score = 1.0
        self._updates: dict[int, Tensor] = {}  # by row, of this round; D needs their mean, which is not known before

    def heard(self, update: Update) -> None:
        """Note loss, examples and the update."""
        table = self.candidates
        row = table.row(update.client)
        table["loss"][row] = mean_loss(update, "loss_mean")
        table["examples"][row] = update.examples
        self._updates[row] = update.delta

    def _open_round(self) -> None:
        self._compare()

    def _rows(self, count: int, generator: np.random.Generator) -> Rows:
        rows = self.candidates.idle
        return rows[sample(self.probabilities(rows), count, generator)]

    def _close_round(self, rows: Rows) -> None:
        self.candidates["chosen"][rows] = self.round
        self.candidates["choices"][rows] += 1
        if len(rows):
            self.mean_score = float(self.candidates["score"][rows].mean())

    def probabilities(self, rows: Rows) -> Floats:
        """Probabilities of the first draw from these clients; they sum to 1."""
        S = self.scores(rows)
        self.candidates["score"][rows] = normalised(S) if np.ptp(S) > 0 else 1.0
        scores = S / self.temperature
        weights = np.exp(scores - scores.max(initial=-np.inf))
        return np.asarray(weights / weights.sum())

    def scores(self, rows: Rows) -> Floats:
        """The scores S of the clients in these rows."""
        table = self.candidates
        known = np.flatnonzero(table["examples"][rows] > 0)
        V = np.ones(len(rows))
        if len(known):
            V[known] = normalised(table["loss"][rows[known]])
        F = self._fairness(rows, known)
        St = normalised(0.5 * np.log1p(self.round - table["chosen"][rows]))
        D = table["diversity"][rows]
        return V + self.diversity * D + self.fairness * F + self.staleness * St

    def _fairness(self, rows: Rows, known: Rows) -> Floats:
        F = np.zeros(len(rows))
        if self.fair_by == "examples":
            c = self.candidates["examples"][rows[known]]
            F[known] = np.clip(1.0 - c / c.mean(), -1.0, 1.0) if len(known) else 0.0
            return F
        c = self.candidates["choices"][rows]
        mean = self.candidates["choices"].mean()
        return np.clip(1.0 - c / mean, -1.0, 1.0) if mean > 0 else F

    def score_of(self, client: int) -> float:
        """The client's score when it could last be chosen, scaled to 0..1 over those that could be."""
        return float(self.candidates["score"][self.candidates.row(client)])

    def _compare(self) -> None:
        """D of the clients of this round."""
        if not self._updates:
            return
        g = torch.stack(list(self._updates.values()))
        g_bar = g.mean(0)
        lengths = torch.linalg.vector_norm(g, dim=1) * torch.linalg.vector_norm(g_bar)
        cosines = torch.where(lengths > 0, (g @ g_bar) / lengths, 1.0)
        self.candidates["diversity"][list(self._updates)] = (1.0 - cosines).clamp(0.0, 1.0).numpy()
        self._updates.clear()

    def state_dict(self) -> dict[str, Any]:
        """The table, the rounds, the updates of this round and its mean score."""
        updates = [[row, delta] for row, delta in self._updates.items()]
        return super().state_dict() | {"updates": updates, "mean_score": self.mean_score}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        super().load_state_dict(state)
        self.mean_score = float(state["mean_score"])
        self._updates = {int(row): delta for row, delta in state["updates"]}
