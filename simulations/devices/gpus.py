"""Devices that are real GPUs: seconds per step from the model's counted work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmtl.components import Param
from fedmtl.config_errors import did_you_mean
from fedmtl.errors import ConfigError
from fedmtl.randomness import numpy_generator
from simulations.devices.catalogue import DEFAULT_MIX, GIGA, GPUS
from simulations.devices.kinds import Speeds, World
from simulations.devices.roofline import CONTEXT_BYTES, StepCost, count_step


def gpus(
    world: World,
    *,
    mix: Annotated[Mapping[str, float], Param("GPUs and their weights, such as {t4 = 3, a100-40gb = 1}")] = DEFAULT_MIX,
    efficiency: Annotated[float, Param("share of the peak that matrix products reach", gt=0, le=1)] = 0.4,
    precision: Annotated[Literal["fp32", "tensor"], Param("fp32, or tensor cores where a GPU has them")] = "fp32",
    launch_seconds: Annotated[float, Param("seconds to launch a kernel from a desktop processor", ge=0)] = 1e-5,
) -> Speeds:
    """Real GPUs, from an embedded board to a data-centre card, by a roofline estimate of the model's training step.

    The work is that of one backward pass over all heads. The shares of the mix are met as nearly as whole clients
    allow; which client has which GPU is drawn. A small model waits for its kernels to be launched, so that large GPUs
    gain it little.

    Raises
    ------
    ConfigError
        If the mix names an unknown GPU or has no positive weight, the model is not known, or it does not fit a GPU's
        memory.
    """
    weights = _checked(mix)
    if world.model is None or world.batch is None:
        raise ConfigError("devices.kind = 'gpus' needs a model and a batch of inputs, to count the work of a step")
    cost = count_step(world.model, world.batch)
    _check_memory(weights, cost, world.model, world.batch)
    names = list(weights)
    tensor_cores = precision == "tensor"
    seconds = np.array(
        [
            cost.seconds(GPUS[n], efficiency=efficiency, launch_seconds=launch_seconds, tensor_cores=tensor_cores)
            for n in names
        ]
    )
    which = np.repeat(np.arange(len(names)), apportion(np.array(list(weights.values())), world.clients))
    which = numpy_generator(world.seed, "devices").permutation(which)
    return Speeds(seconds_per_step=seconds[which], labels=[GPUS[names[k]].name for k in which.tolist()])


def apportion(weights: NDArray[np.float64], seats: int) -> NDArray[np.int64]:
    """Whole numbers in proportion to the weights that add up to `seats`, by the method of largest remainders."""
    shares = weights / weights.sum() * seats
    whole: NDArray[np.int64] = np.floor(shares).astype(np.int64)
    rest = np.argsort(whole - shares, kind="stable")[: seats - int(whole.sum())]
    whole[rest] += 1
    return whole


def _checked(mix: Mapping[str, float]) -> dict[str, float]:
    """The GPUs of positive weight."""
    for name, weight in mix.items():
        if name not in GPUS:
            raise ConfigError(f"devices.mix.{name} is unknown{did_you_mean(name, GPUS)}; known: {', '.join(GPUS)}")
        if not 0 <= weight < np.inf:
            raise ConfigError(f"devices.mix.{name} = {weight}: a weight must be a finite number of 0 or more")
    weights = {name: float(weight) for name, weight in mix.items() if weight > 0}
    if not weights:
        raise ConfigError("devices.mix has no GPU with a positive weight")
    return weights


def _check_memory(weights: Mapping[str, float], cost: StepCost, model: nn.Module, batch: Tensor) -> None:
    small = [name for name in weights if not cost.fits(GPUS[name])]
    if not small:
        return
    gpu = GPUS[small[0]]
    parameters = sum(p.numel() for p in model.parameters())
    raise ConfigError(
        f"devices: the model {type(model).__name__} ({parameters:,} parameters, batches of {len(batch)}) needs "
        f"{(cost.memory + CONTEXT_BYTES) / GIGA:.1f} GB to train; {gpu.name} has {gpu.memory / GIGA:g} GB. "
        f"Leave {', '.join(small)} out of devices.mix, or lower training.batch_size"
    )
