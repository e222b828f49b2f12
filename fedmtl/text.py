"""Text from outside: what clients and users wrote, made fit for tables, consoles and logs."""

from __future__ import annotations

import hashlib

LONGEST = 500
"""Characters of a text from outside that are kept, unless said otherwise."""

_LONGEST_NAME = 200
"""Bytes of a file's name: a file system takes 255, and what is being written has a longer name for a while."""

_TWINS = str.maketrans({"·": ".", "█": "#", "±": "+/-", "…": "~", "↑": "^", "↓": "v"})
"""For the signs with which we print ourselves, what is printed where the console does not know them."""


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


def escaped(text: str, encoding: str = "utf-8") -> str:
    r"""The text as it can be shown: what moves a cursor, cannot be seen or cannot be encoded is written as an escape.

    Line breaks stay. Different texts stay different, unless one already has such an escape in it.

    Examples
    --------
    >>> from fedmtl.text import escaped
    >>> print(escaped("height\x1b[2J"))
    height\x1b[2J
    >>> print(escaped("höhe", "ascii"))
    h\xf6he
    """
    if not text.isprintable():
        text = "".join(char if char.isprintable() or char == "\n" else _escape(char) for char in text)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_TWINS).encode(encoding, "backslashreplace").decode(encoding)
    return text


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def file_name(text: str) -> str:
    """A file's or a folder's name that says as much of a text as may stand in one; of a long text, the beginning.

    Examples
    --------
    >>> from fedmtl.text import file_name
    >>> file_name("1:50, 8/10")
    '1-50--8-10'
    >>> file_name("far too " * 40)[-40:]
    'oo-far-too-far-too-far--c57d07257060e1c4'
    """
    name = "".join(char if char.isalnum() or char in "._-" else "-" for char in text)
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    return f"{name.encode()[:100].decode(errors='ignore')}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def is_valid_text(text: str) -> bool:
    """Whether a text is Unicode that every file can hold; bytes that are no text become halves of surrogate pairs."""
    return not any("\ud800" <= char <= "\udfff" for char in text)
