"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmtl.errors import RunDirectoryError, WriteError
from fedmtl.text import is_valid_text


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: what the block writes there takes the final name at the end, in one step.

    The bytes reach the disk before the name does. Where anything fails, the temporary file is removed, and a file that
    had the name before is untouched.

    Raises
    ------
    WriteError
        If the file cannot be written, for instance because the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        _remove(temporary)
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise WriteError(f"cannot write {path}: {reason}; free space there or choose another directory") from error
    except BaseException:
        _remove(temporary)
        raise


def check_path(path: Path) -> None:
    """See whether a path can be one here, whether or not there is something.

    Raises
    ------
    RunDirectoryError
        If it is too long, leads through what may not be entered, or is no valid Unicode, which tables' paths must be.
    """
    if not is_valid_text(str(path)) or "\0" in str(path):
        raise RunDirectoryError(f"cannot use {str(path)!a}: it is not valid Unicode, or has a NUL in it")
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise RunDirectoryError(f"cannot use {path}: {error.strerror}; choose another") from None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    # The directory itself may be what cannot be used; the first fault is the one to report.
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
