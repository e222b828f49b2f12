"""Device profiles: how fast the clients' devices are, and when they are away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fedmtl.components import check_options, choose
from simulations.devices.distributions import exponential, homogeneous, normal, uniform
from simulations.devices.gpus import gpus
from simulations.devices.kinds import Builder, World, kind
from simulations.devices.profile import Devices, Outage
from simulations.devices.summary import Summary, describe
from simulations.devices.trace import trace

if TYPE_CHECKING:
    from fedmtl.config import DevicesSection

DEVICES: dict[str, Builder] = {
    "homogeneous": kind(homogeneous),
    "uniform": kind(uniform),
    "normal": kind(normal, jitter=0.05),
    "exponential": kind(exponential, jitter=0.05),
    "trace": kind(trace),
    "gpus": kind(gpus),
}
"""Kinds of devices by the name that a configuration gives them."""


def device_options(section: DevicesSection) -> dict[str, Any]:
    """The options of the section's kind, checked, defaults filled in.

    Raises
    ------
    ConfigError
        If the kind or a key is unknown, or a value has the wrong type or lies outside its range.
    """
    build = choose(DEVICES, section.kind, "devices.kind")
    return check_options(build, section.options, "devices", section.kind)


def build_devices(
    section: DevicesSection, clients: int, seed: int, model: nn.Module | None = None, batch: Tensor | None = None
) -> Devices:
    """The devices that a configuration asks for.

    Parameters
    ----------
    section
        The section `devices` of the configuration.
    clients
        Number of clients.
    seed
        Of the devices: ``devices.seed``, or the run's.
    model, batch
        The model that is trained, and a batch of inputs, shape [batch, ...]; only the kind `gpus` needs them.

    Raises
    ------
    ConfigError
        If an option is wrong, or a device cannot do the work.
    """
    return DEVICES[section.kind](World(clients, seed, model, batch), **device_options(section))


__all__ = ["DEVICES", "Devices", "Outage", "Summary", "World", "build_devices", "describe", "device_options"]
