"""``python -m fedmtl.cli`` is the command ``fedmtl``."""

from fedmtl.cli import main

if __name__ == "__main__":
    main()
