"""Models of a user's own that draw, count and keep levels: the same bits in every run, cut or not, on any worker."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.trainer import LocalTrainer
from fedmtl.errors import ConfigError
from fedmtl.models import MODELS, MultiTaskModel
from fedmtl.randomness import default_generators, undisturbed_generators
from simulations import Experiment, run
from simulations.runner import RunResult
from strategies.core.loop import Loop, Observer

FILES = ("updates.parquet", "aggregations.parquet", "evaluations.parquet", "model.safetensors")
WIDTH = 8


class Lively(nn.Module):
    """Draws from every default generator, counts its calls in every way, and binds a buffer anew."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, WIDTH)
        self.noise = nn.Sequential(nn.Dropout(0.2), nn.AlphaDropout(0.1), nn.RReLU())
        self.norm = nn.BatchNorm1d(WIDTH, momentum=None)
        self.plain_calls = 0
        self.history: list[int] = []
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("order", torch.from_numpy(np.random.permutation(WIDTH)))  # noqa: NPY002
        self.register_buffer("level", torch.ones(WIDTH))

    def forward(self, inputs: Tensor) -> Tensor:
        self.plain_calls += 1
        self.history.append(self.plain_calls)
        self.calls = self.calls + 1
        hidden = self.norm(self.noise(self.first(inputs.flatten(1))))
        self.level = 0.9 * self.level + 0.1 * hidden.detach().square().mean(0)
        drawn = torch.randn(WIDTH) + float(np.random.normal()) + random.random()  # noqa: NPY002
        scale = 1.0 / (1.0 + float(self.calls) + len(self.history) + self.plain_calls)
        return torch.relu((hidden + 0.1 * drawn + scale) / (1.0 + self.level))[:, self.order]


def lively(input_shape: tuple[int, ...], tasks: Any) -> MultiTaskModel:
    return MultiTaskModel(Lively(int(np.prod(input_shape))), WIDTH, tasks)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "lively", lively)


class CutError(Exception):
    pass


class FailAt(Observer):
    def __init__(self, version: int) -> None:
        self.version = version

    def on_aggregation(self, loop: Loop, aggregation: Any) -> None:
        if aggregation.version == self.version:
            raise CutError


def experiment(*settings: str) -> Experiment:
    given = ["data.clients=4", "strategy.name=fedbuff", "strategy.buffer_size=2", "stop.versions=4", "devices.ratio=4"]
    recorded = ["records.checkpoint_every=1", "records.evaluate_every=1", "training.epochs=1", "balancing.name=equal"]
    return Experiment.load(None, [*given, *recorded, "model.name=lively", *settings])


def go(directory: Path, *settings: str, **options: Any) -> RunResult:
    return run(experiment(*settings), directory, pictures=False, **options)


def files(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("uncut") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(MODELS, "lively", lively)
        go(directory)
    return files(directory)


def disturb() -> None:
    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002
    random.random()


def states() -> list[Any]:
    of_numpy = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state().tolist(), of_numpy[1].tolist(), *of_numpy[2:], random.getstate()]


def test_two_runs_of_a_seed_are_the_same_and_leave_the_callers_generators_alone(tmp_path: Path, uncut: Any) -> None:
    disturb()
    np.random.normal()  # noqa: NPY002 - keeps the second of a pair
    before = states()
    go(tmp_path / "run")
    assert states() == before
    assert files(tmp_path / "run") == uncut


def test_a_run_that_was_cut_and_resumed_is_the_same(tmp_path: Path, uncut: Any) -> None:
    with pytest.raises(CutError):
        go(tmp_path / "run", observers=[FailAt(3)])
    disturb()
    go(tmp_path / "run", resume=True)
    assert files(tmp_path / "run") == uncut


def test_another_seed_draws_otherwise(tmp_path: Path, uncut: Any) -> None:
    go(tmp_path / "run", "seed=1")
    assert files(tmp_path / "run")["model.safetensors"] != uncut["model.safetensors"]


@pytest.fixture
def by_value() -> Iterator[None]:
    """Actors cannot import a test."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.slow("ray")
@pytest.mark.usefixtures("by_value")
@pytest.mark.parametrize("count", [1, 2])
def test_any_number_of_workers_makes_the_same(tmp_path: Path, uncut: Any, count: int) -> None:
    go(tmp_path / "run", "engine.workers=ray", f"engine.count={count}")
    assert files(tmp_path / "run") == uncut


def test_a_job_that_fails_gives_the_generators_back() -> None:
    chosen = experiment()
    strategy = chosen.new_strategy()
    (order, *_) = strategy.orders(strategy.begin(range(4), 0.0).decision.assignments)
    model = chosen.new_model()
    trainer = LocalTrainer(model, chosen.data)

    def fail(module: nn.Module, inputs: Any) -> None:
        disturb()
        raise CutError

    model.backbone.register_forward_pre_hook(fail)
    before = states()
    with pytest.raises(CutError):
        trainer.train(order)
    assert states() == before


def test_runs_that_end_in_another_order_than_they_began_leave_nothing_behind() -> None:
    # As in two threads; a count of open blocks had gone wrong here, and later jobs gave nothing back.
    first, second = undisturbed_generators(), undisturbed_generators()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    before = states()
    with default_generators(7):
        disturb()
    assert states() == before


def test_a_job_does_not_depend_on_those_before() -> None:
    chosen = experiment()
    strategy = chosen.new_strategy()
    orders = strategy.orders(strategy.begin(range(4), 0.0).decision.assignments)
    used, fresh = (LocalTrainer(chosen.new_model(), chosen.data) for _ in range(2))
    for order in orders:
        last = used.train(order)
    assert torch.equal(last.delta, fresh.train(orders[-1]).delta)
    level = next(entry for entry in used.layout.entries if entry.name == "backbone.level")
    assert last.delta[level.start : level.stop].abs().min() > 0.0  # what is bound anew travels


# What can be neither kept nor put back.


class Hidden(nn.Module):
    """Keeps something that no vector holds; `use` changes it."""

    def __init__(self, inputs: int, state: Callable[[nn.Module], None], use: Callable[[nn.Module], None]) -> None:
        super().__init__()
        self.inner = nn.Linear(inputs, WIDTH)
        state(self)
        self.use = use

    def forward(self, inputs: Tensor) -> Tensor:
        self.use(self)
        return torch.relu(self.inner(inputs.flatten(1)))


def scaled(name: str) -> Callable[[Any], None]:
    def use(module: Any) -> None:
        setattr(module, name, getattr(module, name) * 1.5)

    return use


HIDDEN: dict[str, tuple[Callable[[Any], None], Callable[[Any], None], str]] = {
    "complex buffer": (
        lambda module: module.register_buffer("phase", torch.ones(2, dtype=torch.complex64)),
        scaled("phase"),
        r"complex buffer 'backbone\.phase'.*view_as_real",
    ),
    "tensor": (
        lambda module: setattr(module, "hidden", torch.ones(2)),
        scaled("hidden"),
        r"attribute Tensor 'backbone\.hidden'.*register_buffer\('hidden'",
    ),
    "tensor in place": (
        lambda module: setattr(module, "hidden", torch.ones(2)),
        lambda module: module.hidden.add_(1.0),
        r"attribute Tensor 'backbone\.hidden'",
    ),
    "array": (
        lambda module: setattr(module, "table", np.ones(2)),
        scaled("table"),
        r"attribute ndarray 'backbone\.table'",
    ),
    "generator": (
        lambda module: setattr(module, "own", torch.Generator()),
        lambda module: torch.rand(1, generator=module.own),
        r"generator of its own, 'backbone\.own'.*default generator",
    ),
    "shape": (
        lambda module: module.register_buffer("grown", torch.ones(2)),
        lambda module: setattr(module, "grown", torch.cat([module.grown, torch.ones(1)])),
        r"buffer 'backbone\.grown' was .*\(2,\).*\(3,\)",
    ),
    "complex parameter": (
        lambda module: setattr(module, "turn", nn.Parameter(torch.ones(2, dtype=torch.complex64))),
        lambda module: None,
        r"parameter 'backbone\.turn' is complex.*view_as_real",
    ),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_state_that_can_be_neither_kept_nor_put_back_is_refused_by_name_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    state, use, message = HIDDEN[kind]

    def hidden(input_shape: tuple[int, ...], tasks: Any) -> MultiTaskModel:
        return MultiTaskModel(Hidden(int(np.prod(input_shape)), state, use), WIDTH, tasks)

    monkeypatch.setitem(MODELS, "hidden", hidden)
    with pytest.raises(ConfigError, match=message):
        run(experiment("model.name=hidden"), tmp_path / "run", pictures=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [kind for kind in HIDDEN if kind != "complex parameter"])
def test_the_same_state_is_welcome_where_it_does_not_change(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    state = HIDDEN[kind][0]

    def constant(input_shape: tuple[int, ...], tasks: Any) -> MultiTaskModel:
        return MultiTaskModel(Hidden(int(np.prod(input_shape)), state, lambda module: None), WIDTH, tasks)

    monkeypatch.setitem(MODELS, "constant", constant)
    assert experiment("model.name=constant").new_strategy().model.version == 0


def test_jobs_that_end_in_another_order_than_they_began_leave_nothing_behind() -> None:
    # As in two threads: the generator that one job leaves to the other must serve no third one meanwhile.
    first, second = default_generators(1), default_generators(2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    before = states()
    with default_generators(7), default_generators(8):
        disturb()
    assert states() == before
