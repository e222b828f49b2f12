"""The two-dimensional toy of task balancing: where each balancer ends from five starts.

    .venv/bin/python -m benchmarks.toy [--names equal,ntkmtl,mgda] [--steps 35000]

Two losses of x = (x1, x2) whose sum leads into a valley on the way (formulas: "Multi-Task Learning as a Bargaining
Game", arXiv 2202.01017, and the code of its authors). The Pareto set lies near x2 = -8.36, with x1 between -7 and 7. x
takes part as the shared parameter of a model without heads, so that the balancers are those that clients train with.
Adam, learning rate 1e-3; FAMO is given 50,000 steps for 35,000. The losses turn negative; balancers see them above
their minima, (-2.1, -21), which changes no gradient.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from fedmtl.balancing import BALANCERS, TaskNetwork, build_balancer
from fedmtl.balancing.network import HeadPass, Pullback
from fedmtl.protocol import Balancing

STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
SCALE = 0.1
MINIMA = (-21 * SCALE, -21.0)
LOW = 5e-6
QUICK = ("equal", "ntkmtl", "si", "famo", "mgda", "pcgrad", "imtl-g", "db-mtl", "aligned-mtl", "upgrad")
"""What takes less than a minute each; the others solve a programme in every step."""


def losses_and_gradients(x1: float, x2: float) -> tuple[tuple[float, float], list[list[float]]]:
    """The two losses at a point and their gradients; in plain numbers, as tensors of two would take minutes."""
    bend = math.tanh(x2)
    f1, f1_slope = _valley(-0.5 * x1 - 3.5 + bend)
    f2, f2_slope = _valley(-0.5 * x1 + 3.5 - bend)
    steep = 1 - bend**2
    half = math.tanh(0.5 * x2)
    c1, c2 = max(half, 0.0), max(-half, 0.0)
    rise = 0.5 * (1 - half**2)
    # At x2 = 0, where one start lies, both are at their bend: half the slope of each, as of a maximum in torch.
    dc1, dc2 = rise * ((x2 > 0) + (x2 >= 0)) / 2, -rise * ((x2 < 0) + (x2 <= 0)) / 2
    q1 = ((7 - x1) ** 2 + 0.1 * (x2 + 8) ** 2) / 10 - 20
    q2 = ((7 + x1) ** 2 + 0.1 * (x2 + 8) ** 2) / 10 - 20
    down = 0.02 * (x2 + 8)
    l1, l2 = f1 * c1 + q1 * c2, f2 * c1 + q2 * c2
    first = [-0.5 * f1_slope * c1 + (x1 - 7) / 5 * c2, f1_slope * steep * c1 + f1 * dc1 + down * c2 + q1 * dc2]
    second = [-0.5 * f2_slope * c1 + (x1 + 7) / 5 * c2, -f2_slope * steep * c1 + f2 * dc1 + down * c2 + q2 * dc2]
    return (SCALE * l1, l2), [[SCALE * slope for slope in first], second]


def _valley(u: float) -> tuple[float, float]:
    """``log max(|u|, LOW) + 6`` and its derivative."""
    return math.log(max(abs(u), LOW)) + 6, (1 / u if abs(u) > LOW else 0.0)


class Toy:
    """What balancers know of a network, where x is both the shared parameter and the representation."""

    def __init__(self, start: tuple[float, float]) -> None:
        self.x = torch.tensor(start, dtype=torch.float64)
        self.tasks = ("l1", "l2")
        self.shared = [self.x]
        self.heads: list[list[Tensor]] = [[], []]
        self.values = [self.x]
        self.outputs = (2, 2)

    def represent(self, inputs: Tensor) -> tuple[Tensor, Pullback]:
        """One row, x, whatever the inputs."""
        return self.x.unsqueeze(0).clone(), lambda gradient: (gradient.sum(0),)

    def losses_and_slopes(self, representation: Tensor, targets: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The losses above their minima, and their gradients of shape [1, 2]."""
        (l1, l2), gradients = losses_and_gradients(*representation[0].tolist())
        values = torch.tensor([l1 - MINIMA[0], l2 - MINIMA[1]], dtype=self.x.dtype)
        return values, list(torch.tensor(gradients, dtype=self.x.dtype).unsqueeze(1))

    def head_pass(self, representation: Tensor, targets: Sequence[Tensor]) -> HeadPass:
        """The same; there are no heads."""
        return HeadPass(*self.losses_and_slopes(representation, targets), [])

    def task_gradients(self, slopes: Sequence[Tensor]) -> Tensor:
        """Shape [2, 1, 2]."""
        return torch.stack(list(slopes))

    def summed_gradient(self, slopes: Sequence[Tensor]) -> Tensor:
        """Shape [1, 2]."""
        return self.task_gradients(slopes).sum(0)

    def stacked(self, slopes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Slopes side by side; the weights below each other are those of two heads that give x as it is."""
        return torch.cat(list(slopes), 1), torch.eye(2, dtype=self.x.dtype).repeat(2, 1)

    def head_gradients(self, representation: Tensor, slopes: Sequence[Tensor]) -> list[Tensor]:
        """There are no heads."""
        return []

    def stacked_head_gradients(self, representation: Tensor, slopes: Tensor) -> list[Tensor]:
        """There are no heads."""
        return []

    def by_head(self, gradients: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        """There are no heads."""
        return [[], []]


def descend(name: str, start: tuple[float, float], steps: int) -> Tensor:
    """Where a balancer is after so many steps, shape [2]."""
    balancer = build_balancer(Balancing(name))
    balancer.start_job(torch.Generator().manual_seed(0))
    toy = Toy(start)
    # AdaTask's steps are Adam's already.
    adam = torch.optim.SGD([toy.x], lr=1e-3) if name == "adatask" else torch.optim.Adam([toy.x], lr=1e-3)
    batch = torch.zeros(max(balancer.least_batch, 1), 1)
    for _ in range(steps):
        (toy.x.grad,) = balancer.gradients(cast(TaskNetwork, toy), batch, [batch, batch], None).shared
        adam.step()
    return toy.x


def on_pareto_set(x: Tensor) -> bool:
    """Whether a point is within 0.2 of the Pareto set."""
    return bool((x[1] + 8.36).abs() < 0.2 and x[0].abs() < 7.2)


def main() -> None:
    """Run and print a row for each balancer: its losses at the end, marked where they are Pareto-optimal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default=",".join(QUICK), help="balancers, separated by commas, or 'all'")
    parser.add_argument("--steps", type=int, default=35_000, help="steps from each start")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = list(BALANCERS) if arguments.names == "all" else arguments.names.split(",")
    print(f"{'balancer':12}" + "".join(f"{f'({a:g}, {b:g})':>20}" for a, b in STARTS) + f"{'Pareto':>8}")
    for name in names:
        steps = arguments.steps * 50 // 35 if name == "famo" else arguments.steps
        ends = [descend(name, start, steps) for start in STARTS]
        print(
            f"{name:12}" + "".join(f"{_cell(x):>20}" for x in ends) + f"{sum(map(on_pareto_set, ends)):>6}/5",
            flush=True,
        )


def _cell(x: Tensor) -> str:
    l1, l2 = losses_and_gradients(*x.tolist())[0]
    return f"({l1:.2f}, {l2:.2f})" + ("*" if on_pareto_set(x) else " ")


if __name__ == "__main__":
    main()
