"""Where the commands print."""

from __future__ import annotations

import sys

from rich.console import Console

_WIDTH_OF_A_FILE = 120


def new_console() -> Console:
    """Standard output; tables are as wide as the terminal, and of a fixed width in a file or pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)
