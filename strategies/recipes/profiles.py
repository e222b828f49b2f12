"""Profiles: a name for many options of a recipe, in one line above it::

    @profile("ref", weight_base="data_size", momentum=False)
    def fedqs(task_weights=None, *, profile: ... = "paper", weight_base: WeightBase = "uniform", ...) -> FlowerStrategy:

An option that is set counts for more than the profile, which counts for more than the default.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

AnyRecipe = TypeVar("AnyRecipe", bound=Callable[..., Any])
_ATTRIBUTE = "__profile__"


def profile(
    name: str, *, training: Mapping[str, Any] | None = None, **options: Any
) -> Callable[[AnyRecipe], AnyRecipe]:
    """Declare what `profile = name` stands for.

    Parameters
    ----------
    name
        The profile.
    training
        What it says of the section [training], which is no strategy's to set: an experiment asks for it.
    options
        What it says of the recipe's options.
    """

    def declare(recipe: AnyRecipe) -> AnyRecipe:
        @functools.wraps(recipe)
        def build(*parts: Any, **given: Any) -> Any:
            return recipe(*parts, **in_profile(build, given))

        setattr(build, _ATTRIBUTE, (name, options, dict(training or {})))
        return build  # type: ignore[return-value]

    return declare


def in_profile(recipe: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, and before them what their profile says."""
    name, options, _ = getattr(recipe, _ATTRIBUTE, ("", {}, {}))
    return {**(options if name and given.get("profile") == name else {}), **given}


def training_in_profile(recipe: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the profile of the options that were given says of the section [training]."""
    name, _, training = getattr(recipe, _ATTRIBUTE, ("", {}, {}))
    return dict(training) if name and given.get("profile") == name else {}
