"""The client's half of FedAT as FedQS's authors have it: convolutions decay (:mod:`clients.techniques`)."""

from __future__ import annotations

from clients.policies.base import Adaptation, Observed, Plan, Probe
from clients.techniques.convolution_decay import ConvolutionDecay
from fedmtl.protocol import TrainOrder


class ConvolutionDecayAdaptation(Adaptation):
    """The order's constant ``decay`` is the factor."""

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """The order's settings, with the decay."""
        return Plan(order.settings, technique=ConvolutionDecay(order.constants["decay"]))
