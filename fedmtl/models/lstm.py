"""Recurrent networks for text.

The next-character network of FedQS's language experiment: embedding 8, two LSTM layers of 128 units; the last hidden
states of both layers, concatenated, are the representation. Vocabulary of 80 characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor, nn

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.tasks import Task


def lstm(
    input_shape: Sequence[int],
    tasks: Sequence[Task],
    *,
    vocabulary: Annotated[int, Param("number of different tokens", ge=2, source="authors' code")] = 80,
    embedding: Annotated[int, Param("size of a token's embedding", ge=1, source="authors' code")] = 8,
    hidden: Annotated[int, Param("units of a layer", ge=1, source="authors' code")] = 128,
    layers: Annotated[int, Param("number of layers", ge=1, source="authors' code")] = 2,
) -> MultiTaskModel:
    """LSTM over token sequences; all layers' last hidden states are the representation; for text."""
    if len(input_shape) != 1 or input_shape[0] < 1:
        raise ConfigError(
            f"model.name = 'lstm' reads sequences of tokens, shape (length,), but the examples have shape "
            f"{tuple(input_shape)}; use 'lenet' or 'resnet18' for images"
        )
    return MultiTaskModel(_LastStates(vocabulary, embedding, hidden, layers), layers * hidden, tasks)


class _LastStates(nn.Module):
    """Tokens, int64 [batch, length], to the last hidden states of all layers, [batch, layers * hidden]."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.is_floating_point():
            raise ConfigError(
                f"model.name = 'lstm' reads tokens (integers), but these features are {tokens.dtype}; "
                "use 'linear' or 'mlp'"
            )
        states: Tensor
        _, (states, _) = self.lstm(self.embedding(tokens))
        return states.transpose(0, 1).flatten(1)
