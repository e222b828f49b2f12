"""The few exceptions of FedMTL.

`UserError` and its kinds mean that an input was wrong: the command line prints their message and exits with 2.
Anything else is a fault of the program.
"""


class UserError(Exception):
    """Something the user gave is wrong; the message names it and says what would be right."""


class ConfigError(UserError):
    """A key, type or value of a configuration is wrong, or a combination makes no sense."""


class DataError(UserError):
    """A data set, file or partition cannot be used."""


class RunDirectoryError(UserError):
    """A run directory holds something else than was expected, or cannot be written."""


class DivergedError(UserError):
    """A server step would have made the model not finite, and was not taken.

    Attributes
    ----------
    version
        The one that it would have made.
    """

    def __init__(self, message: str, version: int) -> None:
        super().__init__(message)
        self.version = version


class WriteError(RunDirectoryError):
    """A file cannot be written, because the disk is full, say."""


class CheckpointError(UserError):
    """A checkpoint is damaged or belongs to another configuration."""
