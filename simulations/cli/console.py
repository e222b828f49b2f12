"""Where the commands print."""

from __future__ import annotations

import sys

from rich.console import Console

_WIDTH_OF_A_FILE = 120


def new_console() -> Console:
    """Standard output; tables are as wide as the terminal, and of a fixed width in a file or pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)


def is_live(console: Console) -> bool:
    """Whether what is shown can be drawn anew: on a terminal that can move its cursor."""
    return console.is_terminal and not console.is_dumb_terminal
