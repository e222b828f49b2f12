"""Oort's selection: clients that are useful to the model and not too slow, and some that were never tried.

"Oort: Efficient Federated Learning via Guided Participant Selection" (OSDI 2021, arXiv 2010.06081). In round R, with
client i's utility ``U_i = |B_i| sqrt(mean loss^2)``, the duration t_i of its last job and its last round r_i:

    score_i = norm(min(U_i, 98th percentile)) + sqrt(0.1 ln R / r_i)      norm(u) = (u - min U) / (max U - min U)
    score_i = score_i (T / t_i)^alpha                                     if t_i > T

T is a percentile of the durations; a pacer moves it every W rounds: up if the utility of the exploited clients has
hardly changed, down if it has jumped. A share epsilon of a round, which shrinks from round to round, explores: it is
drawn from the clients that never reported. The others are drawn with probabilities proportional to the scores, from
those whose score is at least c times that of the first client beyond the cut.

Differences from the authors' code: the server knows no sizes and speeds before a client's first update, so that it
explores uniformly; the cut-off client is the last one if there is none beyond the cut; equal utilities have the norm 1,
a duration of 0 is no fault; |B_i| is the number of the client's examples, and the loss the one it reports
(:mod:`clients.policies.loss_reports`: of batches, not of single examples), or its tasks' mean losses under policies
that report none. When nobody is left to explore the whole round exploits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.protocol import Update
from fedmtl.restoring import number_or_none
from strategies.selectors.base import Floats, Rows, Selector, mean_loss, percentile, sample

_CODE = "authors' code"

Exploration = Annotated[float, Param("share of a round that explores, at first", ge=0, le=1, source=_CODE)]
Decay = Annotated[float, Param("factor of that share per round", gt=0, le=1, source=_CODE)]
ExplorationMin = Annotated[float, Param("least share that explores", ge=0, le=1, source=_CODE)]
RoundThreshold = Annotated[
    float, Param("percentile of durations that is not penalised, at first", gt=0, le=100, source=_CODE)
]
PacerRounds = Annotated[int, Param("rounds between two moves of the percentile", ge=1, source=_CODE)]
PacerStep = Annotated[float, Param("its move, percentage points", gt=0, le=100, source=_CODE)]
Penalty = Annotated[float, Param("exponent of a slow client's penalty", ge=0, source="paper")]
CutOff = Annotated[float, Param("least score, as a share of the cut-off's", ge=0, le=1, source=_CODE)]
Clip = Annotated[float, Param("percentile at which utilities are clipped", gt=0, le=100, source=_CODE)]
BlacklistRounds = Annotated[
    int | None, Param("clients chosen more often are left out; none if not set", ge=1, source=_CODE)
]


class OortSelector(Selector):
    """Clients that are useful to the model and not too slow, and some that were never tried (Oort).

    `exploration` is the formulas' epsilon, `penalty` alpha and `cut_off` c; T is the percentile `round_threshold` at
    first, infinite from 100 on, and W is `pacer_rounds`. Clients that were chosen more than `blacklist_rounds` times
    are left out while there are others, at most 30 % of all clients.

    Attributes
    ----------
    exploration, threshold
        Epsilon, and the percentile that T is, now.

    Raises
    ------
    ConfigError
        If the least exploration is above the first.

    Examples
    --------
    The third client has the largest loss, but takes ten times as long as T, and the second only twice as long:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.selectors import OortSelector
    >>> selector = OortSelector(exploration=0.0, exploration_min=0.0)
    >>> selector.free(range(3))
    >>> for client, (loss, seconds) in enumerate([(1.0, 2.0), (3.0, 4.0), (4.0, 20.0)]):
    ...     selector.heard(toy_update(client, task_losses=(loss,), arrived_at=seconds))
    >>> selector.preferred_duration, selector.choose(1)
    (2.0, [1])
    >>> selector.scores(selector.candidates.clients).round(2).tolist()
    [0.0, 0.17, 0.01]
    """

    purpose: ClassVar[str] = "OortSelector"

    def __init__(
        self,
        *,
        exploration: Exploration = 0.9,
        decay: Decay = 0.95,
        exploration_min: ExplorationMin = 0.2,
        round_threshold: RoundThreshold = 30.0,
        pacer_rounds: PacerRounds = 20,
        pacer_step: PacerStep = 5.0,
        penalty: Penalty = 2.0,
        cut_off: CutOff = 0.7,
        clip: Clip = 98.0,
        blacklist_rounds: BlacklistRounds = None,
    ) -> None:
        super().__init__(utility=0.0, duration=0.0, last=0.0, chosen=0.0, exploits=0.0)
        if exploration_min > exploration:
            raise ConfigError(f"exploration_min = {exploration_min} is above exploration = {exploration}")
        self.exploration = exploration
        self.threshold = round_threshold
        self.decay = decay
        self.exploration_min = exploration_min
        self.pacer_rounds = pacer_rounds
        self.pacer_step = pacer_step
        self.penalty = penalty
        self.cut_off = cut_off
        self.clip = clip
        self.blacklist_rounds = blacklist_rounds
        self._exploited = np.empty(0, dtype=np.intp)
        self._window = 0.0
        self._last_window: float | None = None

    def heard(self, update: Update) -> None:
        """Note utility, duration and round."""
        table = self.candidates
        row = table.row(update.client)
        table["utility"][row] = update.examples * mean_loss(update, "loss_rms")
        table["duration"][row] = update.duration
        table["last"][row] = max(self.round, 1)

    def _open_round(self) -> None:
        self._pace()
        self.exploration = max(self.exploration * self.decay, self.exploration_min)

    def _rows(self, count: int, generator: np.random.Generator) -> Rows:
        table, idle = self.candidates, self.candidates.idle
        barred = self._blacklist(idle)
        heard = table["last"][idle] > 0
        known, fresh = idle[np.flatnonzero(heard & ~barred)], idle[np.flatnonzero(~heard & ~barred)]
        explore = min(count - min(int(count * (1.0 - self.exploration)), len(known)), len(fresh))
        exploit = min(count - explore, len(known))
        exploited = self._exploit(known, exploit, generator)
        table["exploits"][:] = 0.0
        table["exploits"][exploited] = 1.0
        explored = fresh[sample(np.ones(len(fresh)), explore, generator)]
        rest = idle[np.flatnonzero(barred)]
        rest = rest[sample(np.ones(len(rest)), count - exploit - explore, generator)]
        return np.concatenate([exploited, explored, rest])

    def _close_round(self, rows: Rows) -> None:
        table = self.candidates
        table["chosen"][rows] += 1
        self._exploited = rows[table["exploits"][rows] > 0]

    def _exploit(self, rows: Rows, count: int, generator: np.random.Generator) -> Rows:
        """Draw from the clients that are good enough."""
        if count == 0:
            return rows[:0]
        pool, weights = self.pool(rows, count)
        return pool[sample(weights, count, generator)]

    def pool(self, rows: Rows, count: int) -> tuple[Rows, Floats]:
        """Of clients that reported, those good enough for a draw of `count`, and the first draw's probabilities."""
        scores = self.scores(rows)
        place = len(scores) - 1 - min(count, len(scores) - 1)
        good = np.flatnonzero(scores >= self.cut_off * np.partition(scores, place)[place])
        total = scores[good].sum()
        weights = scores[good] / total if total > 0 else np.full(len(good), 1.0 / len(good))
        return rows[good], weights

    def scores(self, rows: Rows) -> Floats:
        """Scores of clients that reported, all at least 0."""
        table = self.candidates
        U, t, last = table["utility"][rows], table["duration"][rows], table["last"][rows]
        low, spread = U.min(), np.ptp(U)
        clipped = np.minimum(U, percentile(U, self.clip))
        norm = (clipped - low) / spread if spread > 0 else np.ones_like(U)
        score = norm + np.sqrt(0.1 * math.log(self.round) / last)
        with np.errstate(divide="ignore", invalid="ignore"):
            score *= np.fmin(self.preferred_duration / t, 1.0) ** self.penalty  # 0 / 0 is no fault, either
        return np.asarray(score)

    @property
    def preferred_duration(self) -> float:
        """T, the duration from which on clients are penalised, in seconds."""
        durations = self.candidates["duration"][self.candidates["last"] > 0]
        if self.threshold >= 100 or len(durations) == 0:
            return math.inf
        place = min(int(len(durations) * self.threshold / 100), len(durations) - 1)
        return float(np.partition(durations, place)[place])

    def _pace(self) -> None:
        """Sum the utility of the clients last exploited, and compare the sum with that of the W rounds before."""
        if len(self._exploited):
            self._window += float(self.candidates["utility"][self._exploited].mean())
        if self.round % self.pacer_rounds:
            return
        if self._last_window is not None:
            change = abs(self._window - self._last_window)
            if change <= 0.1 * self._last_window:
                self.threshold = min(100.0, self.threshold + self.pacer_step)
            elif change >= 5.0 * self._last_window:
                self.threshold = max(self.pacer_step, self.threshold - self.pacer_step)
        self._last_window, self._window = self._window, 0.0

    def _blacklist(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of these rows are left out."""
        if self.blacklist_rounds is None:
            return np.zeros(len(rows), dtype=np.bool_)
        chosen = self.candidates["chosen"]
        barred = np.zeros(len(chosen), dtype=np.bool_)
        tired = np.flatnonzero(chosen > self.blacklist_rounds)
        most = int(0.3 * len(chosen))
        barred[tired[np.argsort(-chosen[tired], kind="stable")[:most]]] = True
        return barred[rows]

    def state_dict(self) -> dict[str, Any]:
        """The table, the rounds, the exploration and the pacer."""
        return super().state_dict() | {
            "exploration": self.exploration,
            "threshold": self.threshold,
            "exploited": self._exploited.tolist(),
            "window": self._window,
            "last_window": self._last_window,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        super().load_state_dict(state)
        self.exploration, self.threshold = float(state["exploration"]), float(state["threshold"])
        self._exploited = np.array(state["exploited"], dtype=np.intp)
        self._window, self._last_window = float(state["window"]), number_or_none(state["last_window"])
