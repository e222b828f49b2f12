"""Curricula: the server says how much of its examples a client may use by now.

Down: the open share, as the term ``share``, and the constant ``order``. Up: nothing beside the update. The client's
half is :mod:`clients.policies.curriculum`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.protocol import GlobalModel, TrainSettings
from strategies.core.kinds import ClientPolicy, Instruction
from strategies.core.ledger import Ledger
from strategies.selectors.paced import paced

Share = Annotated[float, Param("share of the examples at the start", gt=0, le=1)]
Opened = Annotated[int, Param("server version from which on everything is open", ge=1)]
ExampleOrder = Annotated[
    Literal["easy_first", "hard_first", "random"], Param("which examples come first", source="paper")
]


class Curriculum(ClientPolicy):
    """Clients train on easy examples first, and on all of them later (curricula).

    Examples
    --------
    From a quarter of the examples to all within 100 versions:

    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.policies.curriculum import Curriculum
    >>> policy = Curriculum(start=0.25, versions=100)
    >>> for version in (0, 50, 100):
    ...     policy.instruct(0, TrainSettings(), toy_model([0.0], version=version), Ledger()).terms
    {'share': 0.25}
    {'share': 0.625}
    {'share': 1.0}
    """

    name = "curriculum"

    def __init__(self, *, start: Share = 0.3, versions: Opened = 200, order: ExampleOrder = "easy_first") -> None:
        self.start = start
        self.versions = versions
        self.constants = {"order": order}

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The run's settings, and the share of its examples that the client trains on in this version."""
        return Instruction(settings, {"share": paced(model.version, self.start, self.versions)}, {})
