"""Public data sets by their schema, from small copies that are saved to disk here; nothing is downloaded."""

from types import ModuleType

import numpy as np
import pytest
import torch

from fedmtl.config import parse_config
from fedmtl.data.build import build_data
from fedmtl.data.hub import hub
from fedmtl.data.hub_schemas import CHARACTERS, SCHEMAS
from fedmtl.errors import ConfigError, DataError

datasets: ModuleType
WORDS = "To be, or not to be: that is the question: Whether 'tis nobler in the mind to suffer"


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    """Load it with the first of these tests: it takes a second, and all files are collected by every worker."""
    global datasets
    datasets = pytest.importorskip("datasets")


def pictures(rows: int, size: tuple[int, int], mode: str, seed: int = 0) -> list:
    from PIL import Image

    rng = np.random.default_rng(seed)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode) for _ in range(rows)]


def class_names(name: str, classes: int) -> list[str]:
    return [f"{name} of kind {k}" for k in range(classes)]


def image_split(rows: int, column: str, size: tuple[int, int], mode: str, labels: dict, seed: int = 0):
    features = datasets.Features(
        {
            column: datasets.Image(),
            **{name: datasets.ClassLabel(names=class_names(name, classes)) for name, classes in labels.items()},
        }
    )
    rng = np.random.default_rng(seed)
    values = {name: rng.integers(0, classes, rows).tolist() for name, classes in labels.items()}
    return datasets.Dataset.from_dict({column: pictures(rows, size, mode, seed), **values}, features=features)


def save(path, train, test=None) -> str:
    splits = {"train": train} if test is None else {"train": train, "test": test}
    datasets.DatasetDict(splits).save_to_disk(str(path))
    return str(path)


@pytest.mark.parametrize(
    ("name", "column", "mode", "size", "labels"),
    [
        ("mnist", "image", "L", 28, {"label": 10}),
        ("fashion-mnist", "image", "L", 28, {"label": 10}),
        ("cifar10", "img", "RGB", 32, {"label": 10}),
        ("cifar100", "img", "RGB", 32, {"fine_label": 100, "coarse_label": 20}),
    ],
)
def test_pictures_with_labels(tmp_path, name, column, mode, size, labels):
    train = image_split(12, column, (size, size), mode, labels)
    path = save(tmp_path / "copy", train, image_split(5, column, (size, size), mode, labels, seed=1))
    pool = hub(0, 3, dataset=name, path=path)
    channels = 1 if mode == "L" else 3
    assert pool.train.features.shape == (12, channels, size, size)
    assert pool.test.features.shape == (5, channels, size, size)
    assert pool.natural is None
    assert {task.name: task.outputs for task in pool.tasks} == labels
    assert all(list(task.classes) == class_names(task.name, task.outputs) for task in pool.tasks)
    for task, target in zip(pool.tasks, pool.train.targets, strict=True):
        assert target.tolist() == train[task.name][:]
    pixels = np.asarray(train[3][column], dtype=np.float64).reshape(size, size, channels).transpose(2, 0, 1)
    # float32 rounding of numbers up to 1.
    assert np.allclose(pool.train.features[3].numpy(), pixels / 127.5 - 1, atol=1e-6)


def femnist(rows: int = 30):
    split = image_split(rows, "image", (28, 28), "L", {"character": 62})
    writers = [f"f{k % 4:04d}_14" for k in range(rows)]
    return split.add_column("writer_id", writers).add_column("hsf_id", [0] * rows)


def test_femnist_is_split_by_writer_and_draws_its_test_set(tmp_path):
    path = save(tmp_path / "femnist", femnist())
    config = [
        "data.source=hub",
        "data.dataset=femnist",
        f"data.path={path}",
        "data.partition=natural",
        "data.clients=4",
    ]
    data = build_data(parse_config({}, config))
    assert data.clients == 4
    assert data.client_names == tuple(f"f{k:04d}_14" for k in range(4))
    assert build_data(parse_config({}, [*config, "data.ids_per_client=2", "data.clients=2"])).client_names == ()
    assert len(data.train) == 24
    assert len(data.test) == 6
    pool = hub(0, 4, dataset="femnist", path=path)
    again = hub(1, 4, dataset="femnist", path=path)
    assert set(pool.natural) == {0, 1, 2, 3}
    assert not torch.equal(pool.test.features, again.test.features)


def test_celeba_has_forty_binary_tasks_and_its_celebrities(tmp_path):
    names = [task.name for task in SCHEMAS["celeba"].tasks]
    assert len(names) == 40

    def split(rows: int, seed: int):
        rng = np.random.default_rng(seed)
        table = {name: (rng.random(rows) < 0.5).tolist() for name in names}
        features = datasets.Features(
            {
                "image": datasets.Image(),
                "celeb_id": datasets.Value("int64"),
                **{n: datasets.Value("bool") for n in names},
            }
        )
        columns = {"image": pictures(rows, (178, 218), "RGB", seed), "celeb_id": [7 + k // 2 for k in range(rows)]}
        return datasets.Dataset.from_dict({**columns, **table}, features=features)

    train = split(8, 0)
    pool = hub(0, 4, dataset="celeba", path=save(tmp_path / "celeba", train, split(3, 1)), image_size=24)
    assert pool.train.features.shape == (8, 3, 24, 24)
    assert {task.kind for task in pool.tasks} == {"binary"}
    assert pool.train.targets[20].tolist() == [float(value) for value in train["Male"][:]]
    assert pool.natural.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def shakespeare():
    texts = [WORDS[k % 4 : k % 4 + 80] for k in range(20)]
    users = ["HAMLET"] * 12 + ["OPHELIA"] * 8
    nexts = [WORDS[k % 4 + 80 - len(WORDS)] for k in range(20)]
    return datasets.Dataset.from_dict({"character_id": users, "x": texts, "y": nexts})


def test_shakespeare_is_tested_on_the_last_fifth_of_every_character(tmp_path):
    split = shakespeare()
    pool = hub(0, 2, dataset="shakespeare", path=save(tmp_path / "shakespeare", split))
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 80
    assert pool.train.features.shape == (20 - 2 - 1, 80)
    assert pool.train.features.dtype == torch.int64
    assert pool.tasks[0].outputs == 80
    text = "".join(CHARACTERS[symbol] for symbol in pool.train.features[2].tolist())
    assert text == split[2]["x"]
    assert CHARACTERS[int(pool.train.targets[0][2])] == split[2]["y"]
    tested = ["".join(CHARACTERS[symbol] for symbol in row) for row in pool.test.features.tolist()]
    assert tested == [split[k]["x"] for k in (10, 11, 19)]
    assert pool.natural.tolist() == [0] * 10 + [1] * 7


def adult(rows: int = 50):
    rng = np.random.default_rng(0)
    schema = SCHEMAS["adult"]
    table = {name: rng.integers(0, 90, rows).tolist() for name in schema.numbers}
    table |= {name: rng.choice(["?", "one", "two"], rows).tolist() for name in schema.categories}
    table |= {"fnlwgt": [1] * rows, "education": ["x"] * rows, "income": rng.choice(["<=50K", ">50K"], rows).tolist()}
    return datasets.Dataset.from_dict(table)


def test_adult_is_standardised_and_one_hot(tmp_path):
    split = adult()
    split.save_to_disk(str(tmp_path / "adult"))  # a single split, without a dictionary around it
    pool = hub(0, 5, dataset="adult", path=str(tmp_path / "adult"))
    assert pool.train.features.shape == (40, 5 + 7 * 3)
    assert torch.allclose(pool.train.features[:, :5].mean(0), torch.zeros(5), atol=1e-6)
    assert (pool.train.features[:, 5:].reshape(40, 7, 3).sum(2) == 1).all()
    rich = sum(value == ">50K" for value in split["income"][:])
    assert sum(float(part.targets[0].sum()) for part in (pool.train, pool.test)) == rich


def test_some_examples_can_be_kept(tmp_path):
    path = save(tmp_path / "femnist", femnist())
    pool = hub(0, 4, dataset="femnist", path=path, max_examples=10)
    assert len(pool.train) == len(pool.natural) == 10
    assert len(pool.test) == 6


def test_wrong_data_are_named(tmp_path):
    with pytest.raises(DataError, match=r"data\.path = '.*nothing' is no folder that save_to_disk wrote"):
        hub(0, 2, dataset="mnist", path=str(tmp_path / "nothing"))
    path = save(tmp_path / "femnist", femnist())
    with pytest.raises(DataError, match=r"femnist has no column 'label'.*it has: image, character"):
        hub(0, 2, dataset="mnist", path=path)
    with pytest.raises(ConfigError, match=r"data\.dataset = 'mnits'.*did you mean 'mnist'"):
        build_data(parse_config({}, ["data.source=hub", "data.dataset=mnits"]))
    plain = datasets.Dataset.from_dict({"image": [1, 2], "label": [0, 1]})
    with pytest.raises(DataError, match=r"column 'image': needs pictures"):
        hub(0, 2, dataset="mnist", path=save(tmp_path / "plain", plain, plain))
    only_test = datasets.DatasetDict({"valid": plain})
    only_test.save_to_disk(str(tmp_path / "valid"))
    with pytest.raises(DataError, match=r"has no split 'train'; it has: valid"):
        hub(0, 2, dataset="mnist", path=str(tmp_path / "valid"))


def test_a_broken_picture_and_a_wrong_text_are_found_by_row(tmp_path):
    broken = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"no picture", "path": None}], "label": [1]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)}),
    )
    with pytest.raises(DataError, match=r"column 'image': a picture near row 0 cannot be read"):
        hub(0, 2, dataset="mnist", path=save(tmp_path / "broken", broken, broken))
    short = shakespeare().map(lambda row: {"x": row["x"][:79]})
    with pytest.raises(DataError, match=r"column 'x': row 0 needs a text of 80 characters"):
        hub(0, 2, dataset="shakespeare", path=save(tmp_path / "short", short))
    foreign = shakespeare().map(lambda row: {"y": "ß"})
    with pytest.raises(DataError, match=r"column 'y': row 0 holds a character"):
        hub(0, 2, dataset="shakespeare", path=save(tmp_path / "foreign", foreign))


def test_labels_out_of_range_are_refused_when_the_data_are_built(tmp_path):
    split = datasets.Dataset.from_dict(
        {"image": pictures(4, (28, 28), "L"), "label": [0, 3, 10, 1]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
    )
    path = save(tmp_path / "wrong", split, split)
    overrides = ["data.source=hub", f"data.path={path}", "data.clients=2", "data.partition=iid"]
    with pytest.raises(DataError, match=r"task 'label', training data: labels must be integers in 0\.\.9"):
        build_data(parse_config({}, overrides))


def test_without_the_network_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    with pytest.raises(DataError, match=r"(?s)ylecun/mnist cannot be loaded .*save_to_disk.*data\.path"):
        hub(0, 2, dataset="mnist")


def test_only_images_have_a_size():
    with pytest.raises(ConfigError, match=r"data.image_size = 24: 'adult' holds no images"):
        hub(0, 4, dataset="adult", image_size=24)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("age", ["old"] * 20, r"column 'age': needs numbers, holds Value\('string'\)"),
        ("capital.gain", [1.0] * 19 + [float("nan")], r"column 'capital.gain': the value in row \d+ is not a finite"),
    ],
)
def test_a_number_of_a_table_that_is_none_is_named(tmp_path, column, values, message):
    split = adult(20).remove_columns(column).add_column(column, values)
    with pytest.raises(DataError, match=message):
        hub(0, 2, dataset="adult", path=save(tmp_path / "adult", split))


def test_a_table_is_scaled_in_float64_and_a_constant_becomes_zero(tmp_path):
    rows = 50
    plain = adult(rows).remove_columns(["age", "capital.gain"])
    seconds = np.random.default_rng(0).integers(0, 60, rows)
    names = ("small", "large")
    for name, offset in zip(names, (0.0, 1.7e9), strict=True):
        split = plain.add_column("age", (offset + seconds).tolist()).add_column("capital.gain", [0.7] * rows)
        save(tmp_path / name, split)
    small, large = (hub(0, 2, dataset="adult", path=str(tmp_path / name)).train.features for name in names)
    # float64 keeps seconds since 1970 to 2e-7; the deviation is about 17.
    assert torch.allclose(small, large, atol=1e-6, rtol=0)
    assert not small[:, SCHEMAS["adult"].numbers.index("capital.gain")].any()
