"""``python -m simulations.cli`` is the command ``fedmtl``."""

from simulations.cli import main

if __name__ == "__main__":
    main()
