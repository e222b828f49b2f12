"""Standard output and error as they may be missing: a run goes on when nobody reads what it prints.

Whoever reads may leave (``| head -1``), the disk below a log may be full, a terminal may be gone, and a stream may be
closed from the start. None of that is a reason to lose a run, so writing to these streams never fails.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

_ERRORS = {1: "replace", 2: "backslashreplace"}
"""What becomes of signs that a stream's encoding does not have."""


class _Lossy(io.FileIO):
    """A file to write to that takes everything, and loses what it cannot write."""

    fault: OSError | None = None
    """Why something was lost, the first time."""

    def write(self, data: Any, /) -> int:
        """Write what can be written of the data, and take all of them for written."""
        left = memoryview(data).cast("B")
        try:
            while left:
                written = super().write(left)
                if written is None:  # the other end shares a file that does not block
                    select.select([], [self], [])
                else:
                    left = left[written:]
        except OSError as error:
            self.fault = self.fault or error
        return memoryview(data).nbytes


def make_optional() -> None:
    """Let nothing that is written to the standard streams from now on fail; streams that are closed lead nowhere."""
    # Or the next file that is opened, a table, say, takes the number of a standard stream, and others print into it.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
    sys.stdout, sys.stderr = _optional(1, sys.stdout), _optional(2, sys.stderr)


def _optional(number: int, stream: TextIO | None) -> TextIO:
    encoding = "utf-8" if stream is None else stream.encoding
    if stream is not None:
        stream.flush()
    file = io.BufferedWriter(_Lossy(number, "w", closefd=False))
    return io.TextIOWrapper(file, encoding=encoding, errors=_ERRORS[number], line_buffering=True)


def why_incomplete() -> str | None:
    """Why something that was printed is lost, in words; None if nothing is, or if the reader did not want it."""
    sys.stdout.flush()
    fault = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "fault", None)
    return None if fault is None or fault.errno == errno.EPIPE else os.strerror(fault.errno)
