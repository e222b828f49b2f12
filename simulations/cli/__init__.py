"""The command line. It is the roof of the house: it may import everything, and nothing imports it."""


def main() -> None:
    """Entry point of the command ``fedmtl``."""
    from simulations.cli.app import app

    app(prog_name="fedmtl")


__all__ = ["main"]
