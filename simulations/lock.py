"""A lock on a directory: one process at a time works there, and one that died holds nothing.

The operating system keeps it (``flock``, on Windows a locked byte), on a file in the directory. The file goes with the
lock. One that a killed process left behind means nothing: what counts is whether somebody holds it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from fedmtl.errors import RunDirectoryError

_log = logging.getLogger(__name__)

LOCK = ".lock"

_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_ATTEMPTS = 100  # each is lost to another process that held the lock, and let go of it, in between
_LONGEST = 300

_held: set[int] = set()
"""Descriptors of the locks that this process holds."""


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Meanwhile this block alone holds the directory, which is made if it is not there.

    A directory that was made here and in which nothing is left is removed again. Children of this process do not hold
    the lock, so that it is free when this process dies. Where the file system has no locks, a warning says so.

    Raises
    ------
    RunDirectoryError
        If another process, or another thread of this one, holds it: who is named; or if it cannot be made.
    """
    if directory.exists() and not directory.is_dir():
        raise RunDirectoryError(f"{directory} is a file, not a directory; choose another --out")
    made = list(itertools.takewhile(lambda path: not path.exists(), (directory, *directory.parents)))
    try:
        descriptor = _take(directory)
        try:
            yield
        finally:
            _let_go(descriptor, directory / LOCK)
    finally:
        with contextlib.suppress(OSError):  # something is left in it
            for path in made:
                path.rmdir()


def _take(directory: Path) -> int:
    """The descriptor of the directory's lock, which this process now holds."""
    try:
        for _ in range(_ATTEMPTS):
            directory.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # whoever made the directory has ended, and removed it
                continue
            try:
                if _locks(descriptor, directory):
                    _held.add(descriptor)
                    return descriptor
            finally:
                if descriptor not in _held:
                    os.close(descriptor)
    except OSError as error:
        raise RunDirectoryError(f"cannot write to {directory}: {error.strerror}; choose another --out") from error
    raise RunDirectoryError(f"{directory} is in use by other processes; choose another --out")


def _locks(descriptor: int, directory: Path) -> bool:
    """Lock the open file and write into it by whom; False if it is no longer the directory's."""
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in _BUSY:
            holder = os.read(descriptor, _LONGEST).decode(errors="replace") or "another process"
            raise RunDirectoryError(
                f"{directory} is in use by {holder}; wait until that ends, or choose another --out"
            ) from None
        _log.warning(
            "%s: its file system has no locks (%s); see to it that no second process uses it", directory, error.strerror
        )
    if not _is_at(descriptor, directory / LOCK):  # whoever held it has ended, and removed the file
        return False
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _let_go(descriptor: int, path: Path) -> None:
    if descriptor not in _held:  # a forked child, which ends a block that its parent entered
        return
    _held.discard(descriptor)
    with contextlib.suppress(OSError):  # Windows removes no open file; and who is without a lock shall not fail here
        if _is_at(descriptor, path):
            path.unlink()
    os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    _BYTE = 1 << 30  # far behind the text, which others read

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _forget() -> None:
        """In a forked child: a lock is free when every process that has its file open has closed it."""
        while _held:
            os.close(_held.pop())

    os.register_at_fork(after_in_child=_forget)
