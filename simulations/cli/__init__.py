"""The command line. It is the roof of the house: it may import everything, and nothing imports it.

``fedmtl/__main__.py`` is a door to it.
"""


def main() -> None:
    """Entry point of the command ``fedmtl``."""
    from simulations.cli.streams import make_optional

    # First of all, for what is imported next may already print.
    make_optional()
    # Not at the top, where the application would take the place of its module's name in this package.
    from simulations.cli.app import app

    app(prog_name="fedmtl")


__all__ = ["main"]
