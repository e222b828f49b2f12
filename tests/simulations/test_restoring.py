"""A state that lacks an entry, has one too many or one of another type is refused by the name of the entry."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmtl.checkpoint import load_checkpoint, save_checkpoint
from fedmtl.errors import CheckpointError
from fedmtl.packing import pack, unpack
from fedmtl.restoring import restoring
from simulations import Experiment, run
from simulations.directory import RunDirectory
from simulations.runner import simulated_fleet
from strategies.core.loop import Loop
from tests.interrupting import InterruptAt

SMALL = [
    "data.clients=8",
    'tasks.names=["digit", "ink"]',
    "training.epochs=1",
    "training.batch_size=100",
    "devices.ratio=9",
    "model.name=linear",
    "balancing.name=equal",
    "stop.versions=1000",
    "records.evaluate_every=1000",
]
FREE = ("terms", "vectors", "constants", "options", "observed", "parts")
"""Dictionaries whose keys are names."""

LATE = ("global_step", "variate", "sum")
"""Vectors that are not there at the start, and whose owners do not know the model: a wrong length ends a later step."""

STRATEGIES = {
    "fedqs": ["strategy.name=fedqs", "strategy.buffer_size=3"],
    "fedavg": [
        "strategy.name=fedavg",
        "strategy.clients_per_round=5",
        "strategy.over_commit=1.5",
        "devices.dropout=0.1",
    ],
    "fedcompass": ["strategy.name=fedcompass"],
    "fedqueue": ["strategy.name=fedqueue"],
    "safa": ["strategy.name=safa", "strategy.buffer_size=3"],
    "scaffold": ["strategy.name=scaffold"],
    "oort": ["strategy.name=oort", "strategy.clients_per_round=4"],
    "fedat": ["strategy.name=fedat"],
    "fedadam": ["strategy.name=fedadam"],
    "wkafl": ["strategy.name=wkafl"],
}


def places(state: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every entry of every dictionary; of a list's entries only the first dictionary is looked into."""
    if isinstance(state, Mapping):
        for key, entry in state.items():
            yield (*way, key)
            yield from places(entry, (*way, key))
    elif isinstance(state, list):
        for place, entry in enumerate(state):
            if isinstance(entry, Mapping):
                yield from places(entry, (*way, place))
                break


def changed(state: Any, way: tuple[Any, ...], change: Callable[[dict[str, Any], str], None]) -> Any:
    """A copy of the dictionaries and lists on the way to one place, with a change there; all else is the same."""
    whole = holder = copy.copy(state)
    for step in way[:-1]:
        holder[step] = copy.copy(holder[step])
        holder = holder[step]
    change(holder, way[-1])
    return whole


def remove(holder: dict[str, Any], key: str) -> None:
    del holder[key]


def add(holder: dict[str, Any], key: str) -> None:
    holder["stranger"] = 1


def mistype(holder: dict[str, Any], key: str) -> None:
    holder[key] = 17 if isinstance(holder[key], str) or key == "failure" else "x"


def reshape(holder: dict[str, Any], key: str) -> None:
    holder[key] = torch.zeros(3, 5, 7)


def entry_at(state: Any, way: tuple[Any, ...]) -> Any:
    for step in way:
        state = state[step]
    return state


@pytest.fixture(scope="module", params=list(STRATEGIES))
def saved(request: pytest.FixtureRequest) -> tuple[Experiment, Any]:
    """A run that was interrupted, and its state as a checkpoint gives it back."""
    experiment = Experiment.load(None, [*SMALL, *STRATEGIES[request.param]])
    loop = Loop(experiment.new_strategy(), simulated_fleet(experiment), [InterruptAt(25)])
    loop.run(lambda loop: None)
    model = experiment.new_model()
    experiment.__dict__["new_model"] = lambda: model  # none of those that are restored trains it
    return experiment, unpack(pack(loop.state_dict()))


def restore(experiment: Experiment, state: Any) -> Loop:
    """Restore the state of a loop, as a resumed run does."""
    loop = Loop(experiment.new_strategy(), simulated_fleet(experiment))
    with restoring(Path("the file")):
        loop.load_state_dict(state)
    return loop


def free(way: tuple[Any, ...]) -> bool:
    """Whether a dictionary's keys are names, so that others are as good."""
    return bool(way) and (way[-1] in FREE or (len(way) > 2 and way[-3] == "clients"))


@pytest.mark.parametrize("change", [remove, add, mistype, reshape], ids=lambda change: change.__name__)
def test_a_state_of_another_kind_is_refused_by_the_name_of_the_entry(
    saved: tuple[Experiment, Any], change: Callable[[dict[str, Any], str], None]
) -> None:
    """In lists of dictionaries by that of the list at least."""
    experiment, state = saved
    assert restore(experiment, state).strategy.model.version == state["strategy"]["model"]["version"]
    tried, taken = 0, []
    for way in places(state):
        shaped = isinstance(entry_at(state, way), torch.Tensor) and way[-1] not in LATE
        if free(way[:-1]) or (change is reshape and not shaped):
            continue
        names = {"stranger" if change is add else way[-1]}
        names |= {name for name, place in itertools.pairwise(way) if isinstance(place, int)}
        try:
            restore(experiment, changed(state, way, change))
            taken.append(way)
        except CheckpointError as error:
            assert any(name in str(error) for name in names), (way, str(error))  # noqa: PT017 (one of many)
        tried += 1
    assert not taken
    assert tried > (1 if change is reshape else 40)


@pytest.mark.parametrize("change", [remove, add, mistype], ids=lambda change: change.__name__)
def test_records_of_another_kind_are_refused_by_the_name_of_the_entry(
    tmp_path: Path, change: Callable[[dict[str, Any], str], None]
) -> None:
    experiment = Experiment.load(None, [*SMALL, *STRATEGIES["fedavg"]])
    run(experiment, tmp_path, pictures=False, observers=[InterruptAt(25)])
    folder = RunDirectory(tmp_path).checkpoint
    state = load_checkpoint(folder, experiment.digest)
    assert state is not None
    for way in [("wall_seconds",), *(("records", *way) for way in places(state["records"]))]:
        save_checkpoint(folder, changed(state, way, change), experiment.digest)
        with pytest.raises(CheckpointError, match="stranger" if change is add else str(way[-1])):
            run(experiment, tmp_path, pictures=False, resume=True)
    save_checkpoint(folder, state, experiment.digest)
    assert run(experiment, tmp_path, pictures=False, resume=True, observers=[InterruptAt(3)]).interrupted
