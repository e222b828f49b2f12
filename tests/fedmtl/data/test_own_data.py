"""What a node reads of data that it shares with others: its own examples, and of these every bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clients.trainer import LocalTrainer
from fedmtl.config import ExperimentConfig, parse_config
from fedmtl.data import hub_schemas
from fedmtl.data.build import build_data, build_own_data
from fedmtl.data.federated import FederatedData
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings

ROWS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures of ten classes, each of another brightness, as the Hub has them."""
    import datasets
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 25, size=(ROWS, 28, 28))
    labels = [row % 10 for row in range(ROWS)]
    pictures = [Image.fromarray((noise[row] + 23 * labels[row]).astype(np.uint8)) for row in range(ROWS)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    split = datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)
    path = tmp_path_factory.mktemp("pictures") / "mnist"
    datasets.DatasetDict({"train": split, "test": split.select(range(10))}).save_to_disk(str(path))
    return path


def config_of(folder: Path, **data: object) -> ExperimentConfig:
    section = {"source": "hub", "path": str(folder), "clients": 5, "partition": "dirichlet", "alpha": 1.0, **data}
    return parse_config({"data": section, "model": {"name": "mlp", "hidden": [4]}})


def train(config: ExperimentConfig, data: FederatedData, client: int) -> torch.Tensor:
    model = build_model(config.model.name, config.model.options, data.input_shape, data.tasks, config.seed)
    layout = ParameterLayout.of(model)
    trainer = LocalTrainer(model, data)
    order = TrainOrder(
        client=client,
        job=0,
        base=GlobalModel(0, layout.pack(model), layout),
        steps=None,
        settings=TrainSettings(epochs=2, batch_size=4, learning_rate=0.1),
        task_factors=None,
        balancing=Balancing("equal", {}),
        policy="plain",
        terms={},
        vectors={},
        seed=7,
    )
    return trainer.train(order).delta


@pytest.mark.parametrize("shift", ["none", "rotation", "noise"])
def test_a_clients_updates_have_the_bits_of_those_with_all_data(shift: str, folder: Path) -> None:
    config = config_of(folder, shift=shift)
    whole = build_data(config)
    for client in range(whole.clients):
        own = build_own_data(config, client)
        assert own.clients == whole.clients
        assert len(own.train) == len(whole.shards[client]) + len(whole.validation[client])
        assert own.input_shape == whole.input_shape
        for mine, all_ in ((own.shards, whole.shards), (own.validation, whole.validation)):
            assert torch.equal(own.train.take(mine[client]).features, whole.train.take(all_[client]).features)
            assert torch.equal(own.train.take(mine[client]).targets[0], whole.train.take(all_[client]).targets[0])
        assert torch.equal(train(config, own, client), train(config, whole, client))


def test_pictures_of_others_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    usual = hub_schemas.read_images

    def note(split, *arguments):
        read.append(len(split))
        return usual(split, *arguments)

    monkeypatch.setattr(hub_schemas, "read_images", note)
    own = build_own_data(config_of(folder), 3)
    assert read == [len(own.train)]
    assert len(own.train) < ROWS


@pytest.mark.parametrize("data", [{"partition": "feature-skew", "alpha": None}, {"source": "digits", "path": None}])
def test_where_the_split_or_the_source_needs_everything_all_is_there(data: dict, folder: Path) -> None:
    given = config_of(folder).data.options | {"source": "hub", "clients": 5, "partition": "dirichlet"} | data
    config = parse_config({"data": {key: value for key, value in given.items() if value is not None}})
    assert len(build_own_data(config, 0).train) == len(build_data(config).train)


def test_a_node_reads_its_own_client_alone_unless_it_works_for_anybody(folder: Path) -> None:
    from flwr.app import Context, RecordDict

    from clients.client_app import node_of

    text = f'data = {{ source = "hub", path = "{folder}", clients = 5, partition = "dirichlet" }}'
    context = Context(1, 2, {"partition-id": 3}, RecordDict(), {"experiment": text})
    assert len(node_of(context).data.train) < ROWS
    assert len(node_of(context, anybody=True).data.train) == ROWS
