"""HeteRo-Select's compression: updates of clients with a higher score keep more of their entries.

After the authors' code. At version t, with the scores S_k, scaled to 0..1, of the clients of a round, and R rounds
over which the share falls,

    theta_t = max(theta (1 + 0.4 cos(pi (t-1)/(R-2))), 0.08), and 1 at version 0      share of a round
    theta_k = clip(theta_t S_k / mean S, 0.005, 1)                                    share of a client
    beta_t  = 0.85 + 0.12 (1 - theta_t)                         of the memory (:mod:`fedmtl.compression.top_entries`)

Differences: there theta_k is also bounded by what the client's bandwidth, which the server knows, carries in a
fixed time, and entries of some layers are ranked by an estimate of the loss that they cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from strategies.selectors.hetero_select import HeteroSelect

_SWING = 0.4
_FLOOR = 0.08
_LEAST = 0.005
_MEMORY = (0.85, 0.97)


@dataclass(frozen=True)
class ScoreCompression:
    """Options of :class:`fedmtl.compression.TopEntries` for each client.

    Attributes
    ----------
    selector
        Has the scores.
    share
        theta.
    rounds
        R.

    Examples
    --------
    The client with the higher score keeps more entries:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.selectors import HeteroSelect
    >>> from strategies.selectors.score_compression import ScoreCompression
    >>> selector = HeteroSelect()
    >>> selector.free(range(3))
    >>> for client, loss in enumerate([0.5, 1.0, 1.5]):
    ...     selector.heard(toy_update(client, terms={"loss_mean": loss}))
    >>> chosen = selector.choose(3)
    >>> compression = ScoreCompression(selector, share=0.25, rounds=10)
    >>> [round(compression(client, version=1)["share"], 3) for client in range(3)]
    [0.005, 0.35, 0.7]
    """

    selector: HeteroSelect
    share: float
    rounds: int

    def __call__(self, client: int, version: int) -> dict[str, float]:
        """What a client's update from this version is compressed with."""
        theta = self.share_of_round(version)
        mean = self.selector.mean_score
        relative = self.selector.score_of(client) / mean if mean > 0 else 1.0
        low, high = _MEMORY
        return {"share": min(max(theta * relative, _LEAST), 1.0), "memory": low + (high - low) * (1.0 - theta)}

    def share_of_round(self, version: int) -> float:
        """The round's share theta_t, before a client's score changes it."""
        if version == 0:
            return 1.0
        passed = min((version - 1) / max(self.rounds - 2, 1), 1.0)
        return min(max(self.share * (1.0 + _SWING * math.cos(math.pi * passed)), _FLOOR), 1.0)
