"""What a strategy's parts are called."""

from __future__ import annotations

import pytest

from strategies.recipes.catalogue import build_strategy
from strategies.recipes.papers import composition


@pytest.mark.parametrize(
    ("recipe", "options", "parts"),
    [
        ("fedbuff", {}, "Buffered x Gradient(Discounted(Uniform)) x Plain"),
        ("oort", {}, "Synchronous(OortSelector) x Model(DataSize) x LossReports"),
        ("fedat", {}, "Tiered x TierModels(Model(DataSize)) x Proximal"),
        (
            "heteroselect",
            {"weight_base": "score"},
            "Synchronous(HeteroSelect) x Optimized(Model(ScoreWeights(HeteroSelect)), SGD) x ScoredReports",
        ),
        ("dimat", {}, "Synchronous x Gossip x Merging"),
    ],
)
def test_a_composition_names_each_part_where_it_is_held(recipe: str, options: dict, parts: str) -> None:
    assert composition(build_strategy(recipe, options)) == parts
