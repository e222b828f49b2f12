"""How a client trains, balances its tasks and compresses its update: the part of an order that is a setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TinyClients = Literal["keep_last_batch", "skip_client", "ref_drop_last"]
"""What becomes of a batch that an epoch's end leaves short, above all of clients that have no other:

``"keep_last_batch"``
    It is trained on.
``"skip_client"``
    It is trained on, but a client with fewer examples than a batch is not asked at all.
``"ref_drop_last"``
    It is dropped. A client with fewer examples than a batch trains no step, and its update still counts: a fault of
    the code of FedQS's authors, for its study.
"""

ClipBy = Literal["model", "part"]
"""What the bound of a step's gradient is the bound of:

``"model"``
    All the gradient together, that of the backbone and of the client's heads.
``"part"``
    The backbone's gradient (the shared gradient), and that of each head, each by itself.
"""


ShiftKind = Literal["none", "rotation", "noise"]
"""How the features of clients differ: not at all, or as :mod:`fedmtl.data.shift` says."""


@dataclass(frozen=True)
class TrainSettings:
    """How a client trains; a policy may send a client other settings than the run's.

    Attributes
    ----------
    epochs
        Passes over the shard in a job, where neither its order nor `steps` says how many steps it has.
    steps
        Local steps of a job, in place of epochs; None: as many as those make. They run on through as many passes over
        the shard as they take, each of them shuffled anew.
    batch_size
        Examples per step; the last batch of an epoch may be smaller.
    learning_rate, momentum
        Of stochastic gradient descent; momentum is heavy ball without dampening, and starts empty in every job.
    clip
        Upper bound of the gradient's L2 norm per step; 0 for none.
    clip_by
        Whose norm that is, see :data:`ClipBy`.
    proximal
        Factor mu of the term ``mu/2 ||w - w_base||^2``.
    weight_decay
        Factor of the term ``decay/2 ||w||^2``.
    tiny_clients
        What becomes of that last batch, see :data:`TinyClients`.
    """

    epochs: int = 2
    batch_size: int = 50
    learning_rate: float = 0.1
    momentum: float = 0.0
    clip: float = 4.0
    clip_by: ClipBy = "model"
    proximal: float = 0.0
    weight_decay: float = 0.0
    tiny_clients: TinyClients = "keep_last_batch"
    steps: int | None = None

    def batches(self, examples: int) -> int:
        """Steps of an epoch over so many examples."""
        if self.tiny_clients == "ref_drop_last":
            return examples // self.batch_size
        return -(-examples // self.batch_size)

    def local_steps(self, examples: int) -> int:
        """Local steps of a job over so many examples, where its order does not say how many.

        None at all where short batches are dropped and there is no other.

        Examples
        --------
        A shard of 23 examples makes three batches, so that two epochs are six steps:

        >>> from fedmtl.settings import TrainSettings
        >>> TrainSettings(epochs=2, batch_size=10).local_steps(23), TrainSettings(steps=4).local_steps(23)
        (6, 4)
        """
        batches = self.batches(examples)
        if self.steps is not None and batches > 0:
            return self.steps
        return self.epochs * batches


@dataclass(frozen=True)
class Balancing:
    """How a client balances its tasks within a step: a balancer's name and options (see :mod:`fedmtl.balancing`)."""

    name: str = "equal"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Compression:
    """How a client makes its update smaller: a compressor's name and options (see :mod:`fedmtl.compression`).

    Attributes
    ----------
    name, options
        Of the compressor.
    seed
        Of the random numbers that client and server share.
    """

    name: str
    options: Mapping[str, Any]
    seed: int
