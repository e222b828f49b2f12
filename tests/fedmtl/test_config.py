import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.components import check_options
from fedmtl.config import ExperimentConfig, complete, parse_config, read_toml, set_key, to_toml
from fedmtl.errors import ConfigError
from fedmtl.partitions import PARTITIONS

# TOML's numbers: 64-bit integers, doubles (but no NaN, which equals nothing, itself included); text has no surrogates.
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
PLAIN = st.booleans() | NUMBERS | st.text(st.characters(codec="utf-8"))
VALUES = PLAIN | st.lists(PLAIN, max_size=3)
KEYS = st.text(st.characters(codec="utf-8"), max_size=8)
TABLES = st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=3), max_size=4)


def complaint(tables: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(tables, overrides, where="lab.toml")
    return str(caught.value)


def test_an_empty_file_is_the_main_job() -> None:
    config = parse_config({})
    assert config == ExperimentConfig()
    assert (config.data.source, config.data.clients, config.strategy.name, config.balancing.name) == (
        "digits",
        100,
        "fedqs",
        "ntkmtl-sr",
    )
    assert config.stop.versions == 400


def test_a_component_section_keeps_the_components_own_options() -> None:
    config = parse_config({"data": {"alpha": 0.1, "clients": 7}})
    assert config.data.clients == 7
    assert config.data.options == {"alpha": 0.1}


def test_a_wrong_key_is_named_with_the_nearest_and_all_valid_keys() -> None:
    message = complaint({"training": {"epocs": 3}})
    assert message.startswith("lab.toml: training.epocs is not a key (did you mean 'epochs'?); known: epochs, steps,")


def test_a_key_in_the_wrong_section_is_shown_home() -> None:
    assert "clients is not a key here, but [data] has one" in complaint({"clients": 10})
    assert "training.workers is not a key here, but [engine] has one" in complaint({"training": {"workers": "ray"}})


def test_a_wrong_section_is_named() -> None:
    assert "trainig is not a key (did you mean 'training'?)" in complaint({"trainig": {"epochs": 1}})


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"training": {"epochs": "two"}}, "training.epochs = 'two': should be a whole number"),
        ({"training": {"epochs": 2.0}}, "training.epochs = 2.0: should be a whole number"),
        ({"training": {"epochs": True}}, "training.epochs = True: should be a whole number"),
        ({"training": {"epochs": 0}}, "training.epochs = 0: should be greater than 0"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate = nan: should be a finite number"),
        ({"training": {"momentum": 1.0}}, "training.momentum = 1.0: should be less than 1"),
        ({"engine": {"workers": "rai"}}, "engine.workers = 'rai': should be 'inline' or 'ray' (did you mean 'ray'?)"),
        ({"tasks": {"names": "digit"}}, 'tasks.names = \'digit\': should be a list, such as ["a", "b"]'),
        ({"tasks": {"names": ["digit", 3]}}, "tasks.names = 3: should be text"),
        ({"data": 3}, "data = 3: is a section, so write [data] and its keys below"),
        ({"stop": {"target": {"task": "digit"}}}, "stop.target.value is missing"),
        ({"name": "../escape"}, "name = '../escape': should be letters, digits"),
        ({"seed": -1}, "seed = -1: should be greater than or equal to 0"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(tables: dict[str, Any], says: str) -> None:
    assert complaint(tables).startswith(f"lab.toml: {says}")


def test_every_fault_is_told_at_once() -> None:
    message = complaint({"seed": -1, "training": {"epochs": 0}, "model": 1})
    assert [line.split(" = ")[0] for line in message.splitlines()] == [
        "lab.toml: seed",
        "lab.toml: model",
        "lab.toml: training.epochs",
    ]


def test_a_whole_number_may_stand_for_a_number() -> None:
    assert parse_config({"training": {"learning_rate": 1}}).training.learning_rate == 1.0


def test_an_override_wins_over_the_file_and_is_blamed_for_its_own_faults() -> None:
    assert parse_config({"data": {"clients": 7}}, ["data.clients=9"]).data.clients == 9
    message = complaint({"seed": -1}, "data.clients=none")
    assert "lab.toml: seed = -1" in message
    assert "--set data.clients=none: data.clients = 'none': should be a whole number" in message


def test_an_override_is_blamed_for_a_section_that_it_made_up() -> None:
    assert complaint({}, "trainig.epochs=1").startswith("--set trainig.epochs=1: trainig is not a key")
    assert complaint({"trainig": {}}, "trainig.epochs=1").startswith("lab.toml: trainig is not a key")


def test_an_override_leaves_the_given_tables_alone() -> None:
    tables: dict[str, Any] = {"data": {"clients": 7}}
    parse_config(tables, ["data.clients=9", "model.hidden=[3]"])
    assert tables == {"data": {"clients": 7}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        ("0.5", 0.5),
        ("true", True),
        ('"20"', "20"),
        ("[1, 2]", [1, 2]),
        ("ray", "ray"),
        (" speeds.csv ", "speeds.csv"),
        ("a=b", "a=b"),
        ("1\nother = 2", "1\nother = 2"),
        ("", ""),
    ],
)
def test_an_override_is_read_as_toml_and_else_as_text(text: str, value: object) -> None:
    tables: dict[str, Any] = {}
    assert set_key(tables, f"a.b={text}") == ("a", "b")
    assert tables == {"a": {"b": value}}


def test_a_key_is_unset_as_if_it_were_not_there() -> None:
    tables = {"tasks": {"only": "ink"}, "stop": {"time": 5}, "data": {"alpha": 3.0, "clients": 7}}
    config = parse_config(tables, ["tasks.only=unset", "stop.time=unset", "data.alpha= unset", "data.clients=unset"])
    assert (config.tasks.only, config.stop.time, config.stop.versions, config.data.clients) == (None, None, 400, 100)
    assert check_options(PARTITIONS["dirichlet"], config.data.options, "data", "dirichlet")["alpha"] == 0.3
    assert check_options(PARTITIONS["class"], {"max_classes": None}, "data", "class")["max_classes"] is None
    assert parse_config(tables, ["tasks=unset", "stop.target=unset"]).tasks.only is None
    assert parse_config(tables, ["stop=unset", "stop.updates=3"]).stop.updates == 3
    assert parse_config({}, ['tasks.only="unset"']).tasks.only == "unset"
    assert parse_config({"stop": {"versions": None}}).stop.versions == 400


def test_a_key_that_there_is_not_cannot_be_unset() -> None:
    assert "training.epocs is not a key" in complaint({}, "training.epocs=unset")
    assert "trainig is not a key" in complaint({}, "trainig=unset")
    options = parse_config({}, ["data.alfa=unset"]).data.options
    with pytest.raises(ConfigError, match=r"data\.alfa is not a key of 'dirichlet'"):
        check_options(PARTITIONS["dirichlet"], options, "data", "dirichlet")


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ('data.targets."education.num"=regression', ("data", "targets", "education.num"), "regression"),
        ("data.targets.'a=b.c' = 1", ("data", "targets", "a=b.c"), 1),
        ('"a"."b"="x=y"', ("a", "b"), "x=y"),
        ('a.b="x=y"', ("a", "b"), "x=y"),
    ],
)
def test_a_part_of_a_key_that_holds_dots_stands_in_quotes(assignment: str, path: tuple[str, ...], value: Any) -> None:
    tables: dict[str, Any] = {}
    assert set_key(tables, assignment) == path
    for part in reversed(path):
        value = {part: value}
    assert tables == value


@pytest.mark.parametrize("text", ["caf\udce9.npz", "a\0b"])
def test_text_that_no_file_can_hold_is_refused_wherever_it_stands(text: str) -> None:
    for data in ({"path": text}, {"features": ["x", text]}, {"targets": {text: "binary"}}):
        message = complaint({"data": data})
        assert message.startswith("lab.toml: data.")
        assert message.isascii()
    assert complaint({}, f"data.path={text}").startswith("--set data.path=")


NO_ASSIGNMENTS = ["devices.ratio", "=3", ".ratio=3", "devices..ratio=3", "devices.=3", 'a."b', '""=1']


@pytest.mark.parametrize("assignment", NO_ASSIGNMENTS)
def test_what_is_no_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match=r"write section\.key=value"):
        set_key({}, assignment)


def test_an_override_cannot_lead_through_a_value() -> None:
    with pytest.raises(ConfigError, match="seed is not a section"):
        set_key({"seed": 1}, "seed.x=3")


def test_a_run_always_ends() -> None:
    assert parse_config({"stop": {"time": 5}}).stop.versions is None
    assert parse_config({"stop": {"updates": 5}}).stop.versions is None
    assert parse_config({"stop": {"target": {"task": "digit", "value": 0.9}}}).stop.versions == 400
    assert parse_config({"stop": {}}).stop.versions == 400


def test_a_file_that_is_not_toml_is_named_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text("seed = 1\n[data\n")
    with pytest.raises(ConfigError, match=r"lab\.toml is not a valid TOML file: .*line 2"):
        read_toml(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml: No such file"):
        read_toml(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        read_toml(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml is not a valid TOML file"):
        read_toml(binary)


@pytest.mark.slow
@given(TABLES)
def test_toml_that_is_written_reads_back_as_it_was(tables: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(tables)) == tables


def test_what_is_unset_is_left_out_of_toml() -> None:
    assert tomllib.loads(to_toml({"a": {"b": None, "c": 1}, "d": None})) == {"a": {"c": 1}}


def test_a_completed_configuration_is_the_same_experiment_again() -> None:
    config = parse_config({"stop": {"time": 5}, "data": {"alpha": 0.1}})
    tables = complete(config, {"data": {"alpha": 0.1, "minimum": 10}, "devices": {"ratio": 50.0, "away": None}})
    again = parse_config(tomllib.loads(to_toml(tables)))
    assert again.data.options == {"alpha": 0.1, "minimum": 10}
    assert again.devices.options == {"ratio": 50.0}
    assert (again.stop, again.training, again.seed) == (config.stop, config.training, config.seed)
