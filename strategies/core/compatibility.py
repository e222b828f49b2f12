"""Which parts go together."""

from __future__ import annotations

from collections.abc import Iterable

from fedmtl.errors import ConfigError
from strategies.core.kinds import Aggregator, Rule
from strategies.core.part import USUAL, Part, Trait, parts_within


def refuse_misfits(parts: Iterable[Part], given: Iterable[Trait] = USUAL) -> None:
    """Refuse parts that do not go together, beside what is given anyway.

    Raises
    ------
    ConfigError
        If a need of one is provided by none, or an aggregator hides the clients' own models that one inside it has;
        the message says whose, what and why.
    """
    every = parts_within(*parts)
    for part in every:
        _refuse_models_that_nobody_is_sent(part)
    provided = frozenset(given).union(trait for part in every for trait in part.provides)
    for part in every:
        for trait, reason in part.needs.items():
            if trait not in provided:
                names = " x ".join(dict.fromkeys(type(other).__name__ for other in every if other is not part))
                raise ConfigError(
                    f"{type(part).__name__} with {names}: it needs {trait!r}, which none of them has; {reason}"
                )


def refuse_rules(rules: Iterable[Rule], parts: Iterable[Part], clients: int | None = None) -> None:
    """Refuse rules beside parts that go with none, and such as need more clients than a step can have.

    Parameters
    ----------
    rules
        They stand, or are to stand, in the place of a mean of updates.
    parts
        Of the strategy.
    clients
        How many a step has at most; None if that is not known.

    Raises
    ------
    ConfigError
        With the part and its reason, or the two counts.
    """
    every = parts_within(*parts)
    for rule in rules:
        if part := next((part for part in every if part.no_rule), None):
            raise ConfigError(
                f"aggregator = {rule.name!r} with {type(part).__name__}: {part.no_rule}; take aggregator = 'mean', or "
                "another strategy"
            )
        if clients is not None and clients < rule.least:
            raise ConfigError(
                f"aggregator = {rule.name!r} needs the updates of {rule.least} clients in a step, and no step has those"
                f" of more than {clients}: ask more of them (data.clients, clients_per_round, buffer_size), or change"
                " the options of the rule"
            )


def _refuse_models_that_nobody_is_sent(holder: Part) -> None:
    if not isinstance(holder, Aggregator) or type(holder).model_for is not Aggregator.model_for:
        return
    for _, inner in holder.held_parts():
        if isinstance(inner, Aggregator) and type(inner).model_for is not Aggregator.model_for:
            raise ConfigError(
                f"{type(holder).__name__} holds {type(inner).__name__}, which has a model for each client, but clients "
                f"would be sent the global one; let {type(inner).__name__} be the strategy's aggregator itself"
            )
