"""Gradients of a model's outputs at some examples, and the kernels they span, without ever holding all of them.

A row r of a kernel is a scalar function ``c_r . f(x_r)``: a combination of the model's outputs (all heads side by side)
at one example. With J the matrix of the rows' gradients, shape [m, P], the kernel is ``K = J J^T``. Outputs reach the
backbone only through the representation z, ``f = W z + b``, so that

    K_rs = <d(c_r W z(x_r)) / dtheta, d(c_s W z(x_s)) / dtheta>  +  (c_r . c_s) (z(x_r) . z(x_s) + 1)

where the second term is that of the heads' own weights and biases and belongs to the kernel of all parameters alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from fedmtl.balancing.network import linear_layers
from fedmtl.models.multitask import MultiTaskModel

Parameters = Literal["shared", "all"]

MEMORY = 1 << 30
"""Bytes that a kernel or a block of gradients may take if nothing else is asked for."""

_BATCH = 256  # examples in one pass through the backbone


@dataclass(frozen=True, eq=False)
class Rows:
    """Combinations of outputs at examples, each of which has a gradient: the rows of a kernel.

    Attributes
    ----------
    example
        Which example each row reads, int64, shape [m].
    cotangent
        How it combines the outputs of all heads, float64, shape [m, outputs].
    """

    example: Tensor
    cotangent: Tensor

    def __len__(self) -> int:
        return len(self.example)

    def part(self, rows: slice) -> Rows:
        """Some of the rows."""
        return Rows(self.example[rows], self.cotangent[rows])

    def chosen(self, places: Tensor) -> Rows:
        """The rows at these places, int64."""
        return Rows(self.example[places], self.cotangent[places])

    @classmethod
    def joined(cls, several: list[Rows]) -> Rows:
        """Rows one after another."""
        return cls(torch.cat([r.example for r in several]), torch.cat([r.cotangent for r in several]))


class Tangents:
    """A model's derivatives at some examples, in float64 and in evaluation mode.

    Parameters
    ----------
    model
        It is copied, and left as it is.
    inputs
        The examples, shape [n, ...].
    parameters
        Derivatives with respect to the backbone's parameters or to all.
    memory
        Bytes that a block of gradients may take.

    Attributes
    ----------
    representation, outputs
        Shapes [n, width] and [n, outputs], float64.
    size
        P, the number of parameters.
    """

    def __init__(
        self, model: MultiTaskModel, inputs: Tensor, *, parameters: Parameters = "shared", memory: int = MEMORY
    ) -> None:
        self._model = copy.deepcopy(model).double().eval().requires_grad_(False)
        self._inputs = inputs.double() if inputs.is_floating_point() else inputs
        self._heads = parameters == "all"
        self._memory = memory
        heads = [cast(nn.Linear, head) for head in self._model.heads.values()]
        self._weight = torch.cat([head.weight for head in heads])
        backbone = self._model.backbone
        self._values: dict[str, Tensor] = dict(backbone.named_parameters())
        self._buffers = dict(backbone.named_buffers())
        self._layers = linear_layers(backbone)
        with torch.no_grad():
            self.representation = torch.cat([backbone(self._inputs[part]) for part in self._parts()])
            self.outputs = torch.cat([head(self.representation) for head in heads], 1)
        shared = sum(value.numel() for value in self._values.values())
        self.size = shared + self._heads * sum(head.weight.numel() + head.bias.numel() for head in heads)

    @property
    def layered(self) -> bool:
        """Whether kernels are written out layer by layer, so that no gradient is ever formed."""
        return self._layers is not None

    def gram(self, a: Rows, b: Rows | None = None) -> Tensor:
        """The kernel of these rows, symmetric, or of one set of rows with another; shape [m_a, m_b]."""
        other = a if b is None else b
        if not self._values:
            kernel = torch.zeros(len(a), len(other), dtype=torch.float64)
        elif self._layers is not None:
            kernel = self._gram_by_layers(a, other)
        else:
            kernel = self._gram_by_blocks(a, b)
        if self._heads:
            kernel += (a.cotangent @ other.cotangent.t()) * self._pairs(self.representation, a, other)
        return kernel

    def apply(self, a: Rows, b: Rows, vector: Tensor) -> Tensor:
        """``J_a (J_b^T v)``, shape [m_a], from one backward and one forward derivative of the examples."""
        result = torch.zeros(len(a), dtype=torch.float64)
        if self._values:
            signal = torch.zeros_like(self.representation)
            signal.index_add_(0, b.example, (vector[:, None] * b.cotangent) @ self._weight)
            change = self._push(self._pull(signal))
            result += ((a.cotangent @ self._weight) * change[a.example]).sum(1)
        if self._heads:
            ones = torch.ones(len(self.representation), 1, dtype=torch.float64)
            inputs = torch.cat([self.representation, ones], 1)
            change = (vector[:, None] * b.cotangent).t() @ inputs[b.example]
            result += ((a.cotangent @ change) * inputs[a.example]).sum(1)
        return result

    def _parts(self) -> Iterator[slice]:
        yield from (slice(start, start + _BATCH) for start in range(0, len(self._inputs), _BATCH))

    def _pull(self, signal: Tensor) -> dict[str, Tensor]:
        """Gradient of ``sum_u signal_u . z(x_u)`` with respect to the backbone's parameters."""
        leaves = {name: value.detach().requires_grad_() for name, value in self._values.items()}
        total = [torch.zeros_like(value) for value in self._values.values()]
        for part in self._parts():
            with torch.enable_grad():
                z = functional_call(self._model.backbone, (leaves, self._buffers), (self._inputs[part],))
            torch._foreach_add_(total, list(torch.autograd.grad(z, list(leaves.values()), signal[part])))
        return dict(zip(self._values, total, strict=True))

    def _push(self, direction: dict[str, Tensor]) -> Tensor:
        """How every representation changes along a direction of the backbone's parameters, shape [n, width]."""
        changes = []
        for part in self._parts():

            def represent(values: dict[str, Tensor], inputs: Tensor = self._inputs[part]) -> Tensor:
                return cast(Tensor, functional_call(self._model.backbone, (values, self._buffers), (inputs,)))

            changes.append(cast(Tensor, jvp(represent, (self._values,), (direction,))[1]))
        return torch.cat(changes)

    def _pairs(self, activation: Tensor, a: Rows, b: Rows) -> Tensor:
        """``a_r . a_s + 1`` for every pair of rows: what a layer's weights and biases see of its inputs."""
        return (activation @ activation.t() + 1.0)[a.example][:, b.example]

    def _gram_by_layers(self, a: Rows, b: Rows) -> Tensor:
        """For a layer's weight and bias the gradients' product is ``(delta_r . delta_s) (a_r . a_s + 1)``."""
        assert self._layers is not None
        activations = [self._inputs.flatten(1)]
        for weight, bias in self._layers:
            activations.append(torch.addmm(bias, activations[-1], weight.t()).relu_())
        kernel = torch.zeros(len(a), len(b), dtype=torch.float64)
        left, right = a.cotangent @ self._weight, b.cotangent @ self._weight
        for index in range(len(self._layers) - 1, -1, -1):
            alive = activations[index + 1] > 0
            left, right = left * alive[a.example], right * alive[b.example]
            kernel.addcmul_(left @ right.t(), self._pairs(activations[index], a, b))
            left, right = left @ self._layers[index][0], right @ self._layers[index][0]
        return kernel

    def _gram_by_blocks(self, a: Rows, b: Rows | None) -> Tensor:
        """Gradients of as many rows as fit, against as many others; a pair of blocks is computed once."""
        other = a if b is None else b
        fits = max(1, self._memory // (8 * sum(value.numel() for value in self._values.values())))
        block = fits if b is None and len(a) <= fits else max(1, fits // 2)
        kernel = torch.empty(len(a), len(other), dtype=torch.float64)
        for i in range(0, len(a), block):
            left = self._gradients(a.part(slice(i, i + block)))
            for j in range(i if b is None else 0, len(other), block):
                same = b is None and i == j
                right = left if same else self._gradients(other.part(slice(j, j + block)))
                kernel[i : i + block, j : j + block] = left @ right.t()
                if b is None and not same:
                    kernel[j : j + block, i : i + block] = kernel[i : i + block, j : j + block].t()
        return kernel

    def passes(self, rows: int) -> int:
        """How many times the gradients of so many rows are computed for their kernel."""
        if self._layers is not None or not self._values:
            return 1
        fits = max(1, self._memory // (8 * sum(value.numel() for value in self._values.values())))
        return 1 if rows <= fits else -(-rows // max(1, fits // 2))

    def _gradients(self, rows: Rows) -> Tensor:
        """The rows' gradients with respect to the backbone's parameters, shape [m, P]."""
        inputs, signal = self._inputs[rows.example], rows.cotangent @ self._weight

        def value(values: dict[str, Tensor], x: Tensor, s: Tensor) -> Tensor:
            z = functional_call(self._model.backbone, (values, self._buffers), (x.unsqueeze(0),))
            return cast(Tensor, z[0] @ s)

        gradient = grad(value)
        if any(isinstance(module, nn.RNNBase) for module in self._model.backbone.modules()):
            # A recurrent layer makes its first state inside, which vmap cannot batch.
            each = [gradient(self._values, x, s) for x, s in zip(inputs, signal, strict=True)]
            return torch.stack([torch.cat([g.flatten() for g in one.values()]) for one in each])
        batched = vmap(gradient, in_dims=(None, 0, 0))(self._values, inputs, signal)
        return torch.cat([g.flatten(1) for g in batched.values()], 1)
