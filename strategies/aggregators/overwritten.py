"""A fault for its study: clients write over what they uploaded while it still waits to be aggregated."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fedmtl.protocol import GlobalModel, Update
from fedmtl.state import update_from_state, update_state
from strategies.ledger import Ledger
from strategies.parts import Aggregator, Step


class Overwritten(Aggregator):
    """Another aggregator is given, in place of an update that waited, what its client has trained since.

    So the queue of the code of FedQS's authors works: it holds the name of a client's file, and the client writes to
    that file when a job begins, not when it ends. An update that is not aggregated before its client's next order is
    sent is lost; the next one is applied in its place, and once more in its own. With their 100 clients and K = 10
    that befalls 76.7 % of the updates, and 12.6 % are applied a second time.

    The other aggregator sees the content's version; weights, counts and the recorded staleness are those of the update
    that waited. What is not finite is not written.

    Parameters
    ----------
    base
        Makes the step.
    """

    needs = MappingProxyType({"exact-updates": "what a client is still training has not been compressed yet"})
    only_simulated = "updates = 'ref_overwrite' applies what clients have not sent yet"

    def __init__(self, base: Aggregator) -> None:
        self.base = base
        self.needs_bases = base.needs_bases
        self.averages_models = base.averages_models
        self._files: dict[int, Update] = {}

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Prepare the base."""
        self.base.prepare(model, seed)

    def foresee(self, update: Update, ledger: Ledger) -> None:
        """The client's file, from now on."""
        if update.failure is None and torch.isfinite(update.delta).all():
            self._files[update.client] = update

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """The base's step from what is in the files."""
        result = self.base.aggregate(dataclasses.replace(step, updates=[self._read(u, step) for u in step.updates]))
        for update in step.updates:
            if self._file_of(update).job == update.job:  # what is read next of this client is a later job's
                self._files.pop(update.client, None)
        return result

    def _read(self, update: Update, step: Step) -> Update:
        file = self._file_of(update)
        known = file.base_version == step.model.version or file.base_version in step.bases
        if file.job == update.job or (self.needs_bases and not known):
            return update
        return dataclasses.replace(update, delta=file.delta, base_version=file.base_version)

    def _file_of(self, update: Update) -> Update:
        return self._files.get(update.client, update)

    def model_for(self, client: int, model: GlobalModel, ledger: Ledger) -> GlobalModel:
        """As the base has it."""
        return self.base.model_for(client, model, ledger)

    def transfers(self, client: int, version: int, ledger: Ledger) -> tuple[int, int]:
        """As the base has it."""
        return self.base.transfers(client, version, ledger)

    def own_models(self) -> Mapping[int, Tensor]:
        """As the base has it."""
        return self.base.own_models()

    def state_dict(self) -> dict[str, Any]:
        """The base's state, and the files."""
        return {"base": self.base.state_dict(), "files": [update_state(file) for file in self._files.values()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.base.load_state_dict(state["base"])
        files = [update_from_state(entry) for entry in state["files"]]
        self._files = {file.client: file for file in files}
