"""The device that a process trains on."""

from __future__ import annotations

import torch

from fedmtl.errors import ConfigError


def usable_device(name: torch.device | str) -> torch.device:
    """The device of that name, if this machine has it.

    Raises
    ------
    ConfigError
        If there is no such device here, or torch cannot use it.
    """
    try:
        device = torch.device(name)
        # A device without content, such as "meta", gives no value back.
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f'engine.device = {str(name)!r}: torch cannot use it on this machine ({reason}); "cpu" is always there'
        ) from None
    return device
