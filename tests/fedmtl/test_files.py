"""Paths and texts that files cannot have, and names that are made for them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.errors import RunDirectoryError, WriteError
from fedmtl.files import check_path, replacing
from fedmtl.text import escaped, file_name


@pytest.mark.parametrize(
    ("name", "says"),
    [("x" * 300, "File name too long"), ("caf\udce9", "not valid Unicode"), ("a\0b", "has a NUL")],
    ids=["long", "bytes", "NUL"],
)
def test_a_path_that_cannot_be_one_is_refused(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=says):
        check_path(tmp_path / name)


def test_a_path_may_be_new_and_of_any_text(tmp_path: Path) -> None:
    check_path(tmp_path / "[bold] ü \x1b" / "absent")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    def write() -> None:
        with replacing(tmp_path / "x.bin") as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"x")

    with pytest.raises(WriteError, match=r"cannot write .*x\.bin: No space left on device; free space"):
        write()
    assert list(tmp_path.iterdir()) == []


@given(st.text())
def test_what_is_made_for_a_file_or_a_console_is_safe_there(text: str) -> None:
    name = file_name(text)
    assert len(name.encode("utf-8", "surrogatepass")) <= 200
    assert all(char.isalnum() or char in "._-" for char in name)
    assert all(char.isprintable() or char == "\n" for char in escaped(text))
    assert escaped(text, "ascii").isascii()
    plain = text.isprintable()
    assert not plain or escaped(text) == text
