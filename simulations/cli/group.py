"""What all commands share: exit codes, and messages in place of tracebacks where the user can mend the fault."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import typer
from typer.core import TyperCommand, TyperGroup

from fedmtl.errors import UserError
from fedmtl.text import escaped, is_valid_text
from simulations.cli.streams import why_incomplete

FAULT = 1
INPUT_WAS_WRONG = 2
INTERRUPTED = 130

_LONGEST = 200
"""Characters of a path that are shown."""

_RESULTS_IN_FILES = ("run", "study", "report")
"""Commands whose results are files: what they print beside may be lost."""


@contextmanager
def _printable_faults() -> Iterator[None]:
    """Let click's own messages about what was typed be as plain as ours."""
    try:
        yield
    except click.UsageError as error:
        if escaped(text := error.format_message()) == text:
            raise
        raise click.UsageError(escaped(text), error.ctx) from None


class Commands(TyperGroup):
    """Turns the user's mistakes and interruptions into messages and exit codes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what was typed, if it is text: it would be written into files which must be valid Unicode."""
        with _printable_faults():
            for argument in args:
                if not is_valid_text(argument):
                    raise click.UsageError(f"{argument!a} is not valid Unicode: rename the file or choose another")
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            with _printable_faults():
                result = super().invoke(ctx)
        except UserError as error:
            _complain(str(error))
            raise typer.Exit(INPUT_WAS_WRONG) from None
        except OSError as error:
            # A name that is too long, a folder that may not be entered: whatever a path can have wrong.
            if error.filename is None:
                raise
            _complain(f"cannot use {_path(error.filename)}: {error.strerror}")
            raise typer.Exit(INPUT_WAS_WRONG) from None
        except KeyboardInterrupt:
            _complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        if ctx.invoked_subcommand not in _RESULTS_IN_FILES and (reason := why_incomplete()) is not None:
            _complain(f"standard output: {reason}; what was printed is incomplete")
            raise typer.Exit(FAULT)
        return result

    def get_help(self, ctx: click.Context) -> str:
        """The help; Typer escapes brackets for rich even where rich does not show it."""
        return super().get_help(ctx).replace(r"\[", "[")


class Command(TyperCommand):
    """A command with a plain help."""

    def get_help(self, ctx: click.Context) -> str:
        """The help; Typer escapes brackets for rich even where rich does not show it."""
        return super().get_help(ctx).replace(r"\[", "[")


def _complain(text: str) -> None:
    typer.echo(escaped(text, getattr(sys.stderr, "encoding", None) or "utf-8"), err=True)


def _path(name: str | bytes | int) -> str:
    text = os.fsdecode(name) if isinstance(name, str | bytes) else str(name)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
