"""What the parts of a strategy have in common, and the words in which they say what they need of each other.

Not every part goes with every other. A part says in `provides` what others can rely on, and in `needs` what it relies
on itself and why, as class attributes or, where it depends on options, set in ``__init__``::

    class Scheduler...: provides = frozenset({"every-update"})
    class Policy...:    needs = {"every-update": "a variate whose update is dropped is counted on the client alone"}

:mod:`strategies.core.compatibility` refuses a combination in which a need is met by no part, with the reason. Parts
that are held by parts (a weighting by an aggregator, say) are asked as well. A kind of guarantee that is missing is a
new word in :data:`Trait`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from fedmtl.models.multitask import MultiTaskModel
from fedmtl.protocol import GlobalModel

Trait = Literal[
    "every-update",
    "fresh-updates",
    "distinct-clients",
    "groups",
    "assigned-steps",
    "feedback",
    "duals",
    "duals-mean",
    "task-changes",
    "exact-updates",
    "local-steps",
    "merging",
]
"""What a part can provide to others:

``"every-update"``
    The scheduler has every valid update applied; it turns none down.
``"fresh-updates"``
    Every update that is applied started from the newest version: there is no staleness.
``"distinct-clients"``
    No client occurs twice in a server step.
``"groups"``
    The trigger ``"single"`` tells a client's lone report from a step of a group.
``"assigned-steps"``
    Every order says how many local steps to run.
``"feedback"``
    Updates carry FedQS's feedback bit and similarity, as terms.
``"duals"``
    Clients correct their steps by dual variables, which move by their updates.
``"duals-mean"``
    The mean of the clients' dual variables goes into the model.
``"task-changes"``
    Updates carry a change of the backbone for each task.
``"exact-updates"``
    An update arrives as its client made it. Every strategy has this unless it compresses updates.
``"local-steps"``
    An update comes of one local step at least. Every strategy has this unless clients drop short batches.
``"merging"``
    Clients merge their neighbours' models themselves.
"""

USUAL: frozenset[Trait] = frozenset({"exact-updates", "local-steps"})
"""What every strategy has of itself."""


class Part:
    """What every part has: a state that can be saved and restored. Parts without state inherit these as they are.

    Attributes
    ----------
    provides
        What other parts can rely on.
    needs
        What the part relies on, each with the reason, as a clause that stands after a semicolon.
    follows
        Terms of updates that the ledger is to follow, each with the largest value that is credible; none is below 0.
    only_simulated
        Why real clients cannot do what the part asks of them; empty if they can.
    """

    provides: frozenset[Trait] = frozenset()
    needs: Mapping[Trait, str] = MappingProxyType({})
    follows: Mapping[str, float] = MappingProxyType({})
    only_simulated: str = ""

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Before anything else: the model that the run starts from, and the run's seed for the part's random draws."""
        return None

    def examine(self, model: MultiTaskModel, features: Tensor) -> None:
        """Look at the model and the examples' features, shape [n, ...], before a run.

        Raises
        ------
        ConfigError
            If the part cannot work with them; with the reason.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """The part's state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but was given {sorted(state)}")


def parts_within(part: Part) -> Iterator[Part]:
    """The part and the parts that it holds, at any depth."""
    yield part
    for value in vars(part).values():
        if isinstance(value, Part):
            yield from parts_within(value)
