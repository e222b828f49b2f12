"""``python -m fedmtl`` is the command ``fedmtl``: a door, which passes on to the command line when asked."""

from simulations.cli import main

if __name__ == "__main__":
    main()
