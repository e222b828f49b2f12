"""A server step that is put together by hand."""

from fedmtl.toy import toy_model, toy_update
from strategies.core.kinds import Step


def test_a_step_knows_its_updates_as_a_run_would() -> None:
    old, new = toy_model([0.0, 1.0], version=2), toy_model([1.0, 1.0], version=3)
    updates = [toy_update(0, base_version=3, examples=20), toy_update(4, base_version=2, examples=40)]
    step = Step.of(new, updates, earlier=[old], clients=range(3), trigger="all", late=[updates[1].key])
    assert (step.model, step.updates, step.trigger, step.late) == (new, updates, "all", {(4, 0)})
    assert {version: vector.tolist() for version, vector in step.bases.items()} == {2: [0.0, 1.0], 3: [1.0, 1.0]}
    assert step.ledger.known == {0, 1, 2, 4}
    assert (step.ledger.frequency(0), step.ledger.mean_examples) == (0.5, 30.0)
