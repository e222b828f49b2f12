from pathlib import Path

import pytest

from fedmtl.config import DevicesSection
from fedmtl.errors import ConfigError
from simulations.devices import Devices, build_devices


def build(path: Path, text: str, clients: int = 3) -> Devices:
    path.write_text(text, encoding="utf-8")
    return build_devices(DevicesSection(kind="trace", file=str(path)), clients, seed=0)


@pytest.fixture
def speeds(tmp_path: Path) -> Path:
    return tmp_path / "speeds.csv"


def test_rows_may_come_in_any_order(speeds: Path) -> None:
    devices = build(speeds, "client,seconds_per_order\n2,3.5\n0,1\n1,2e-1\n")
    assert devices.seconds_per_order.tolist() == [1.0, 0.2, 3.5]
    assert devices.nominal_seconds(9).tolist() == [1.0, 0.2, 3.5]


def test_seconds_may_be_per_step(speeds: Path) -> None:
    devices = build(speeds, "client,seconds_per_step\n0,1\n1,2\n2,4\n")
    assert devices.nominal_seconds(3).tolist() == [3.0, 6.0, 12.0]


def test_files_of_spreadsheets_are_read(speeds: Path) -> None:
    devices = build(speeds, "\ufeffclient, seconds_per_order\r\n0, 1\r\n1, 2\r\n\r\n2, 4\r\n")
    assert devices.seconds_per_order.tolist() == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the header is '', expected client,seconds_per_order or client,seconds_per_step"),
        ("id,seconds_per_order\n", "line 1: the header is 'id,seconds_per_order'"),
        ("client,seconds_per_order,x\n", "line 1: the header"),
        ("client,seconds_per_order\n0,1\n1\n", "line 3: 1 columns, expected 2"),
        ("client,seconds_per_order\n0,1\none,1\n", "line 3, column client: 'one' is not a client's number"),
        ("client,seconds_per_order\n0,1\n-1,1\n", "line 3, column client: '-1' is not"),
        ("client,seconds_per_order\n0,1\n3,1\n", "line 3, column client: there is no client 3, they are 0 to 2"),
        ("client,seconds_per_order\n0,1\n1,1\n\n0,1\n", "line 5, column client: client 0 is there already, in line 2"),
        (
            "client,seconds_per_order\n0,1\n1,fast\n",
            "line 3, column seconds_per_order, client 1: 'fast' is not a positive",
        ),
        ("client,seconds_per_step\n0,0\n", "line 2, column seconds_per_step, client 0: '0' is not a positive number"),
        ("client,seconds_per_step\n0,inf\n", "line 2, column seconds_per_step, client 0: 'inf'"),
        ("client,seconds_per_step\n0,nan\n", "line 2, column seconds_per_step, client 0: 'nan'"),
        ("client,seconds_per_order\n0,1\n", r"column client: client 1 is missing \(2 of 3 are\)"),
    ],
)
def test_faults_name_file_line_column_and_client(speeds: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        build(speeds, text)
    assert str(speeds) in str(error.value)


def test_a_file_that_is_not_there_or_not_text_is_named(speeds: Path) -> None:
    with pytest.raises(ConfigError, match=r"devices.file: cannot read .*speeds.csv: No such file"):
        build_devices(DevicesSection(kind="trace", file=str(speeds)), 3, seed=0)
    speeds.write_bytes(b"client,seconds_per_order\n0,\xff\n")
    with pytest.raises(ConfigError, match=r"devices.file: .*speeds.csv is not a text file in UTF-8"):
        build_devices(DevicesSection(kind="trace", file=str(speeds)), 3, seed=0)


def test_the_file_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"devices\.file"):
        build_devices(DevicesSection(kind="trace"), 3, seed=0)
