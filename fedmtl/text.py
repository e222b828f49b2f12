"""Text from outside: what clients and users wrote, made fit for tables, consoles and logs."""

from __future__ import annotations

LONGEST = 500
"""Characters of a text from outside that are kept, unless said otherwise."""


def printable(text: str, longest: int = LONGEST) -> str:
    r"""The text as every table, console and log can take it.

    What is printable stays as it is. Line breaks, tabs and other white space become blanks; control and format
    characters (an escape, a NUL, a change of the direction of writing), lone surrogates and code points without a
    character become U+FFFD, the replacement character. A text that is longer than `longest` ends in three dots there.

    Examples
    --------
    A text that would clear the reader's screen, and one that no file can hold:

    >>> from fedmtl.text import printable
    >>> printable("gone\n\x1b[2J"), printable("\ud800"), printable("Größe ✓"), printable("abcdefgh", longest=6)
    ('gone �[2J', '�', 'Größe ✓', 'abc...')
    """
    if len(text) > longest:
        text = f"{text[: max(longest - 3, 0)]}..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def shown(value: object, longest: int = 60) -> str:
    """A value from outside as it stands in a message: printable, and short."""
    try:
        return printable(repr(value), longest)
    except Exception:  # whatever a foreign object's own code raises
        return f"a {type(value).__name__}"
