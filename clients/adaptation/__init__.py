"""The client's halves of the policies, by the name that an order carries."""

from __future__ import annotations

from clients.adaptation.base import Adaptation
from clients.adaptation.control_variates import ControlVariatesAdaptation
from clients.adaptation.fedqs import FedQSAdaptation
from clients.adaptation.plain import PlainAdaptation
from fedmtl.errors import UserError

ADAPTATIONS: dict[str, Adaptation] = {
    "plain": PlainAdaptation(),
    "fedqs": FedQSAdaptation(),
    "control-variates": ControlVariatesAdaptation(),
}


def adaptation(name: str) -> Adaptation:
    """The client's half of the policy of that name.

    Raises
    ------
    UserError
        If this client does not know the policy: client and server run different versions of FedMTL.
    """
    if name not in ADAPTATIONS:
        raise UserError(
            f"the server asks for the policy {name!r}, this client knows {', '.join(ADAPTATIONS)}: update the client"
        )
    return ADAPTATIONS[name]
