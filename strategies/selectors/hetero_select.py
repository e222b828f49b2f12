"""HeteRo-Select: a score of usefulness, diversity, fairness and time since the last choice.

arXiv 2508.06692 (its second version, after the authors' code). For the K clients of a round, drawn without replacement
with probabilities proportional to ``exp(S_i / temperature)``:

    S_i  = norm(V_i) + 0.3 D_i + 0.2 F_i + 0.2 St_i          norm(x) = (x - min x) / (max x - min x)
    V_i  : mean loss on the client's first batches           D_i  = clip(1 - cos(g_i, g_bar), 0, 1)
    F_i  = clip(1 - n_i / mean n, -1, 1)                     St_i = norm(ln(1 + rounds since the last choice) / 2)

g_i is the client's last update, shape [P], and g_bar the mean of the updates that came in the same round. A client of
which nothing is known yet has norm(V) = 1, so that it is tried, and D = F = 0.

Differences from the authors' code: the score selects, and that is all; there it can also set a compression, the
learning rate and the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedmtl.protocol import Update
from strategies.selectors.base import Floats, Rows, Selector, mean_loss, normalised, sample


class HeteroSelect(Selector):
    """Draws by the softmax of the scores.

    Parameters
    ----------
    diversity, fairness, staleness
        Factors of D, F and St.
    temperature
        Of the softmax.
    """

    def __init__(
        self, *, diversity: float = 0.3, fairness: float = 0.2, staleness: float = 0.2, temperature: float = 1.0
    ) -> None:
        super().__init__(loss=0.0, diversity=0.0, examples=0.0, chosen=0.0)
        self.diversity = diversity
        self.fairness = fairness
        self.staleness = staleness
        self.temperature = temperature
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

    def probabilities(self, rows: Rows) -> Floats:
        """Probabilities of the first draw from these clients; they sum to 1."""
        scores = self.scores(rows) / self.temperature
        weights = np.exp(scores - scores.max(initial=-np.inf))
        return np.asarray(weights / weights.sum())

    def scores(self, rows: Rows) -> Floats:
        """S of these clients."""
        table = self.candidates
        n = table["examples"][rows]
        known = np.flatnonzero(n > 0)
        V, F = np.ones(len(rows)), np.zeros(len(rows))
        if len(known):
            V[known] = normalised(table["loss"][rows[known]])
            F[known] = np.clip(1.0 - n[known] / n[known].mean(), -1.0, 1.0)
        St = normalised(0.5 * np.log1p(self.round - table["chosen"][rows]))
        D = table["diversity"][rows]
        return V + self.diversity * D + self.fairness * F + self.staleness * St

    def _compare(self) -> None:
        """D of the clients of this round."""
        if not self._updates:
            return
        g = torch.stack(list(self._updates.values()))
        g_bar = g.mean(0)
        lengths = torch.linalg.vector_norm(g, dim=1) * torch.linalg.vector_norm(g_bar)
        cosines = torch.where(lengths > 0, (g @ g_bar) / lengths, torch.ones_like(lengths))
        self.candidates["diversity"][list(self._updates)] = (1.0 - cosines).clamp(0.0, 1.0).numpy()
        self._updates.clear()

    def state_dict(self) -> dict[str, Any]:
        """The table, the rounds and the updates of this round."""
        updates = [[row, delta] for row, delta in self._updates.items()]
        return super().state_dict() | {"updates": updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        super().load_state_dict(state)
        self._updates = {int(row): delta for row, delta in state["updates"]}
