"""The balancers by name."""

from __future__ import annotations

from collections.abc import Callable

from fedmtl.balancing.adatask import AdaTask
from fedmtl.balancing.aligned_mtl import AlignedMTL
from fedmtl.balancing.base import Balancer
from fedmtl.balancing.cagrad import CAGrad
from fedmtl.balancing.conicgrad import ConicGrad
from fedmtl.balancing.db_mtl import DBMTL
from fedmtl.balancing.dwa import DWA
from fedmtl.balancing.equal import Equal
from fedmtl.balancing.equal_probed import EqualProbed
from fedmtl.balancing.fairgrad import FairGrad
from fedmtl.balancing.famo import FAMO
from fedmtl.balancing.graddrop import GradDrop
from fedmtl.balancing.gradnorm import GradNorm
from fedmtl.balancing.gradvac import GradVac
from fedmtl.balancing.imgrad import IMGrad
from fedmtl.balancing.imtl_g import IMTLG
from fedmtl.balancing.imtl_l import IMTLL
from fedmtl.balancing.mgda import MGDA
from fedmtl.balancing.moco import MoCo
from fedmtl.balancing.nash_mtl import NashMTL
from fedmtl.balancing.ntkmtl import NTKMTL
from fedmtl.balancing.ntkmtl_sr import NTKMTLSR
from fedmtl.balancing.pcgrad import PCGrad
from fedmtl.balancing.rlw import RLW
from fedmtl.balancing.sdmgrad import SDMGrad
from fedmtl.balancing.si import SI
from fedmtl.balancing.upgrad import UPGrad
from fedmtl.balancing.uw import UW
from fedmtl.components import create
from fedmtl.errors import ConfigError
from fedmtl.protocol import Balancing

BALANCERS: dict[str, Callable[..., Balancer]] = {
    "equal": Equal,
    "equal-probed": EqualProbed,
    "ntkmtl": NTKMTL,
    "ntkmtl-sr": NTKMTLSR,
    "si": SI,
    "rlw": RLW,
    "dwa": DWA,
    "uw": UW,
    "imtl-l": IMTLL,
    "famo": FAMO,
    "mgda": MGDA,
    "pcgrad": PCGrad,
    "graddrop": GradDrop,
    "cagrad": CAGrad,
    "imtl-g": IMTLG,
    "gradnorm": GradNorm,
    "gradvac": GradVac,
    "nash-mtl": NashMTL,
    "fairgrad": FairGrad,
    "sdmgrad": SDMGrad,
    "moco": MoCo,
    "adatask": AdaTask,
    "imgrad": IMGrad,
    "conicgrad": ConicGrad,
    "aligned-mtl": AlignedMTL,
    "db-mtl": DBMTL,
    "upgrad": UPGrad,
}


def build_balancer(balancing: Balancing) -> Balancer:
    """The balancer that an order asks for.

    Raises
    ------
    ConfigError
        If the name or an option is unknown, or the options do not fit together.
    """
    return create(BALANCERS, balancing.name, balancing.options, "balancing")


def check_balancing(balancing: Balancing, batch_size: int) -> None:
    """Refuse, before anything is trained, a balancer that cannot do its work here.

    Parameters
    ----------
    balancing
        The name of a balancer, and options.
    batch_size
        Examples in a full batch.

    Raises
    ------
    ConfigError
        If the options do not fit together, a package that the balancer needs is not installed, or a batch is too small
        for it.
    """
    least = build_balancer(balancing).least_batch
    if batch_size < least:
        raise ConfigError(
            f"training.batch_size = {batch_size}: balancing.name = {balancing.name!r} cuts every batch into {least} "
            f"parts; set training.batch_size to {least} or more, or choose another balancer"
        )


def bytes_up(balancing: Balancing, tasks: int) -> int:
    """Bytes that a client with so many tasks sends up because its balancer reports.

    8 for each task, and 16; and 4 for each entry of a task's sketch, if it makes any.
    """
    if not getattr(BALANCERS[balancing.name], "reports", False):
        return 0
    sketched: int = balancing.options.get("sketch", 0)
    return (8 + 4 * sketched) * tasks + 16
