"""A step by a rule in place of the weighted mean of updates, each head's by its owners' alone.

With the updates x_i of a step and their weights p_i (x_i is Delta_i where updates are added, and ``w_i - w[t]`` where
models are averaged, so that the rule is one on models there: it moves with the model), for clients c:

    P = sum_i p_i,    P_c = sum of the p_i of c's updates
    x_c    = (1 / P_c) sum of p_i x_i over c's updates            a client has one say, however many updates it sent
    w[t+1] = w[t] + eta_g P rule(x_c over all c; P_c)

So a rule replaces the mean and nothing else. What weights say of single updates counts among those of one client; what
they come to altogether is the length of the step, so that discounts for staleness shorten it as ever
(``P = mean s(tau_i)`` with FedBuff), while whether an update is an outlier does not depend on its age. Where weights
have a factor that makes updates comparable (FedNova's), it is taken out of p_i and into x_i.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fedmtl.errors import ConfigError
from fedmtl.parameters import weighted_sum
from fedmtl.protocol import Update
from strategies.aggregators.ownership import combine_by_owner
from strategies.core.kinds import Rule, Step, Weighting

Away = Callable[[Update, slice], Tensor]
"""Where an update leads from the newest model, for a slice of the vector."""


class Say(NamedTuple):
    """What one client says in a step: its updates merged.

    Attributes
    ----------
    vector
        x_c.
    weight
        P_c.
    parts
        For each of its updates the place among those of the step, and the share that it has in x_c.
    """

    vector: Tensor
    weight: float
    parts: tuple[tuple[int, float], ...]


def merged(clients: Sequence[int], vectors: Sequence[Tensor], weights: Sequence[float]) -> list[Say]:
    """One vector for each client, in the order of the clients' first updates.

    The mean of a client's vectors by their weights, or the plain one where all of these are 0. A single vector is taken
    as it is.

    Parameters
    ----------
    clients
        Whose the vectors are.
    vectors
        Shape [P] each.
    weights
        None is negative.

    Examples
    --------
    Client 7 has sent two updates, of which the second counts three times as much:

    >>> import torch
    >>> from strategies.aggregators.by_rule import merged
    >>> vectors = [torch.tensor([0.0]), torch.tensor([5.0]), torch.tensor([4.0])]
    >>> [(say.vector, say.weight) for say in merged([7, 8, 7], vectors, [0.1, 0.5, 0.3])]
    [(tensor([3.]), 0.4), (tensor([5.]), 0.5)]
    """
    places: dict[int, list[int]] = {}
    for place, client in enumerate(clients):
        places.setdefault(client, []).append(place)
    says = []
    for own in places.values():
        weight = math.fsum(weights[place] for place in own)
        shares = [weights[place] / weight if weight > 0.0 else 1.0 / len(own) for place in own]
        one = vectors[own[0]] if len(own) == 1 else weighted_sum([vectors[place] for place in own], shares)
        says.append(Say(one, weight, tuple(zip(own, shares, strict=True)) if len(own) > 1 else ((own[0], 1.0),)))
    return says


def step_by_rule(
    rule: Rule, step: Step, weighting: Weighting, away: Away, *, rate: float = 1.0
) -> tuple[Tensor, tuple[float, ...]]:
    """The next vector, shape [P], and the weight that each update had in the backbone's step, where this has a sense.

    Parameters
    ----------
    rule
        Combines the clients' vectors.
    step
        The step.
    weighting
        Gives the p_i.
    away
        Gives the x_i.
    rate
        eta_g.
    """
    model, ledger = step.model, step.ledger
    used: tuple[float, ...] | None = None

    def combine(part: slice, updates: Sequence[Update], weights: Sequence[float]) -> Tensor:
        nonlocal used
        current = model.vector[part]
        if current.numel() == 0:
            return current
        scales = weighting.scales(updates, model.version, ledger)
        vectors = [away(u, part) * s if s != 1.0 else away(u, part) for u, s in zip(updates, scales, strict=True)]
        says = merged(
            [update.client for update in updates], vectors, [p / s for p, s in zip(weights, scales, strict=True)]
        )
        change, shares = rule.combine([say.vector for say in says], [say.weight for say in says], model.version)
        total = math.fsum(say.weight for say in says)
        if abs(total - 1.0) < 1e-9:  # but for rounding: the sum of weights that are meant to be a whole
            total = 1.0
        if used is None and part.start == 0 and len(updates) == len(step.updates):  # the backbone, or all
            used = _of_updates(says, [total * share for share in shares])
        if change is None:
            return current
        return current + (change if rate * total == 1.0 else change * (rate * total))

    if rule.whole:
        weighting.look(step)
        weights = weighting.weights(step.updates, model.version, ledger)
        vector = combine(slice(0, model.layout.size), step.updates, weights)
    else:
        vector, weights = combine_by_owner(step, weighting, combine)
    return vector, weights if used is None else used  # none: no backbone, and heads have owners of their own


def statistics_by_rule(rule: Rule | None, step: Step, weights: Sequence[float]) -> Tensor:
    """The next floating-point buffers: what the rule makes of the clients' values, if it works entry by entry.

    Else, and without a rule, their mean by the weights that `step_by_rule` returned. As everywhere, what the weights
    leave of 1 is the server's own.
    """
    total = min(1.0, math.fsum(weights))
    if rule is None or not rule.by_entry or not total > 0.0:
        return step.mean_statistics(weights)
    current, values = step.model.vector[step.model.layout.buffers], step.sent_statistics()
    says = merged([update.client for update in step.updates], [value - current for value in values], weights)
    change, _ = rule.combine([say.vector for say in says], [say.weight for say in says], step.model.version)
    if change is None:
        return current.clone()
    range_of = values if total > 1.0 - 1e-9 else torch.cat([values, current[None]])
    return (current + total * change).clamp(min=range_of.amin(0), max=range_of.amax(0))


def _of_updates(says: Sequence[Say], weights: Sequence[float]) -> tuple[float, ...]:
    """The clients' weights divided among their updates."""
    divided = {place: weight * share for say, weight in zip(says, weights, strict=True) for place, share in say.parts}
    return tuple(divided[place] for place in range(len(divided)))


def weights_under(rule: Rule, weighting: Weighting) -> Weighting:
    """The weights that stand beside the rule.

    Raises
    ------
    ConfigError
        If all clients must count the same under the rule, and do not.
    """
    weights = weighting.under_rule()
    if rule.alike and not weights.alike:
        raise ConfigError(
            f"aggregator = {rule.name!r} needs weight_base = 'uniform', not {type(weights).__name__}: its noise is that"
            " of a mean in which all clients count the same"
        )
    return weights
