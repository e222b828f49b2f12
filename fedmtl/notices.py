"""What a run says by the way: it goes on, but the user should know."""

from __future__ import annotations

import functools
import logging

_log = logging.getLogger("fedmtl")


@functools.cache
def say_once(message: str) -> None:
    """Log this as a warning, which reaches the console where nobody set up logging; once in a process."""
    _log.warning("%s", message)
