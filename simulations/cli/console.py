"""Where the commands print.

What they print holds names, paths and messages that users chose. None of it is markup, and none of it reaches the
terminal as a command: :class:`PlainConsole` takes text for text, wherever it stands. So text is handed to it as `str`,
never as one of rich's own kinds of text.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from fedmtl.text import escaped

_WIDTH_OF_A_FILE = 120


class PlainConsole(Console):
    """A console to which every text is plain; signs that it cannot show are replaced, before anything is laid out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """The text, ready to be shown: rich asks this for every text that it is given, cells of tables included."""
        return super().render_str(escaped(text, self.encoding), **options)


def new_console(*, errors: bool = False) -> PlainConsole:
    """Standard output or error; tables are as wide as the terminal, and of a fixed width in a file or pipe."""
    stream = sys.stderr if errors else sys.stdout
    return PlainConsole(stderr=errors, width=None if stream.isatty() else _WIDTH_OF_A_FILE)


def is_live(console: Console) -> bool:
    """Whether what is shown can be drawn anew: on a terminal that can move its cursor."""
    return console.is_terminal and not console.is_dumb_terminal
