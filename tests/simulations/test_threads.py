from pathlib import Path

import torch

from fedmtl.config import parse_config
from fedmtl.protocol import Event
from simulations import Experiment, run
from strategies.core.loop import Loop, Observer


class Threads(Observer):
    """Notes on how many threads torch computes."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def after_event(self, loop: Loop, event: Event) -> None:
        self.seen.add(torch.get_num_threads())


def test_a_run_computes_on_one_thread_and_leaves_the_callers_setting_alone(tmp_path: Path) -> None:
    usual, threads = torch.get_num_threads(), Threads()
    experiment = Experiment(parse_config({}, ["data.clients=4", "strategy.buffer_size=2", "stop.versions=2"]))
    try:
        torch.set_num_threads(3)
        run(experiment, tmp_path / "run", observers=[threads], pictures=False)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)
    assert threads.seen == {1}
