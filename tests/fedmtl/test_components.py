from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pytest

from fedmtl.components import OptionsOf, Param, check_options, choose, create, options_of, summary_of
from fedmtl.config_errors import did_you_mean
from fedmtl.errors import ConfigError


def lens(
    subject: str,
    *,
    focus: Annotated[float, Param("focal length, metres", gt=0, source="paper")] = 0.05,
    blades: Annotated[int, Param("blades of the shutter", ge=3, le=12)] = 7,
    coating: Annotated[Literal["none", "single", "multi"], Param("of the glass")] = "multi",
    stops: Annotated[tuple[float, ...], Param("f-numbers")] = (2.0, 4.0),
    limit: Annotated[int | Literal["auto"], Param("most pictures", ge=1)] = "auto",
    filter: Annotated[str | None, Param("colour")] = None,
) -> dict[str, Any]:
    """A lens.

    The rest is not shown in lists.
    """
    return {"subject": subject, "focus": focus, "blades": blades}


def mirror(subject: str, *, diameter: Annotated[float, Param("metres", gt=0)]) -> float:
    """A mirror."""
    return diameter


TABLE = {"lens": lens, "mirror": mirror}


def complaint(given: Mapping[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        check_options(lens, given, "data", "lens")
    return str(caught.value)


def test_options_are_the_keyword_only_parameters() -> None:
    options = {option.name: option for option in options_of(lens)}
    assert list(options) == ["focus", "blades", "coating", "stops", "limit", "filter"]
    assert options["focus"].default == 0.05
    assert options["focus"].param == Param("focal length, metres", gt=0, source="paper")
    assert not options["focus"].required
    assert options_of(mirror)[0].required


def test_what_is_allowed_is_said_in_words() -> None:
    assert {option.name: option.allowed for option in options_of(lens)} == {
        "focus": "number, > 0",
        "blades": "whole number, >= 3, <= 12",
        "coating": "'none' or 'single' or 'multi'",
        "stops": "list of number",
        "limit": "whole number or 'auto', >= 1",
        "filter": "text or unset",
    }


def test_options_of_a_class_are_those_of_its_constructor() -> None:
    class Camera:
        def __init__(self, subject: str, *, iso: Annotated[int, Param("speed of the film")] = 100) -> None:
            self.iso = iso

    assert [(option.name, option.default) for option in options_of(Camera)] == [("iso", 100)]


OPTICS = OptionsOf(lens, mirror, without=("filter",))


def telescope(
    subject: str,
    *,
    blades: Annotated[int, Param("blades of the shutter", ge=3, le=12)] = 5,
    **optics: Annotated[Any, OPTICS],
) -> dict[str, Any]:
    """A telescope, with the shutter of a slower lens."""
    of_lens, of_mirror = OPTICS.divide(optics)
    return {**lens(subject, blades=blades, **of_lens), "diameter": mirror(subject, **of_mirror)}


def test_a_builder_takes_the_options_of_those_it_composes_but_states_its_own_defaults() -> None:
    options = {option.name: option.default for option in options_of(telescope)}
    assert options["blades"] == 5
    assert options["focus"] == 0.05
    assert set(options) == {option.name for build in (lens, mirror) for option in options_of(build)} - {"filter"}
    checked = check_options(telescope, {"diameter": 0.3, "focus": 1.5}, "data", "telescope")
    assert telescope("moon", **checked) == {"subject": "moon", "focus": 1.5, "blades": 5, "diameter": 0.3}


def test_an_option_of_none_of_the_composed_builders_is_refused() -> None:
    with pytest.raises(TypeError, match="'zoom' is an option of none of lens, mirror"):
        telescope("moon", zoom=2)
    with pytest.raises(ConfigError, match=r"data\.zoom is not a key of 'telescope'"):
        check_options(telescope, {"zoom": 2, "diameter": 1.0}, "data", "telescope")


def test_an_option_that_is_left_out_is_refused_and_must_be_there() -> None:
    with pytest.raises(TypeError, match="'filter' is an option of none"):
        telescope("moon", filter="red")

    def narrow(**optics: Annotated[Any, OptionsOf(lens, without=("fliter",))]) -> None: ...

    with pytest.raises(TypeError, match="narrow leaves out 'fliter'"):
        options_of(narrow)


def test_two_composed_builders_must_agree_on_an_option_of_one_name() -> None:
    def other(*, diameter: Annotated[float, Param("inches", gt=0)]) -> None: ...

    def both(**optics: Annotated[Any, OptionsOf(mirror, other)]) -> None: ...

    with pytest.raises(TypeError, match="both composes two options 'diameter'"):
        options_of(both)


def test_the_summary_is_the_docstrings_first_line() -> None:
    assert summary_of(lens) == "A lens."


def test_defaults_are_filled_in() -> None:
    checked = check_options(lens, {"blades": 5}, "data", "lens")
    assert checked == {
        "focus": 0.05,
        "blades": 5,
        "coating": "multi",
        "stops": (2.0, 4.0),
        "limit": "auto",
        "filter": None,
    }


def test_a_list_may_stand_for_a_tuple_and_a_whole_number_for_a_number() -> None:
    checked = check_options(lens, {"stops": [1, 2.8], "focus": 1}, "data", "lens")
    assert checked["stops"] == (1.0, 2.8)
    assert checked["focus"] == 1.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"focus": 0}, "data.focus = 0: should be greater than 0 (focal length, metres)"),
        ({"focus": "1"}, "data.focus = '1': should be a number (focal length, metres)"),
        ({"focus": float("nan")}, "data.focus = nan: should be a finite number (focal length, metres)"),
        ({"blades": True}, "data.blades = True: should be a whole number (blades of the shutter)"),
        ({"blades": 13}, "data.blades = 13: should be less than or equal to 12 (blades of the shutter)"),
        (
            {"coating": "mult"},
            "data.coating = 'mult': should be 'none', 'single' or 'multi' (did you mean 'multi'?) (of the glass)",
        ),
        (
            {"limit": "aut"},
            "data.limit = 'aut': should be a whole number or 'auto' (did you mean 'auto'?) (most pictures)",
        ),
        ({"stops": [1.0, "x"]}, "data.stops = 'x': should be a number (f-numbers)"),
        (
            {"fokus": 1},
            "data.fokus is not a key of 'lens' (did you mean 'focus'?); "
            "known: focus, blades, coating, stops, limit, filter",
        ),
    ],
)
def test_a_wrong_option_is_named_with_what_would_be_right(given: Mapping[str, Any], says: str) -> None:
    assert complaint(given) == says


def test_every_wrong_option_is_told_at_once() -> None:
    assert complaint({"focus": -1, "blades": 0}).count("\n") == 1


def test_a_missing_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data\.diameter is missing \(metres\)"):
        check_options(mirror, {}, "data", "mirror")


def test_an_unknown_component_is_named_with_the_nearest_and_all_known() -> None:
    with pytest.raises(
        ConfigError, match=r"data\.source = 'lense' is unknown \(did you mean 'lens'\?\); known: lens, mirror"
    ):
        choose(TABLE, "lense", "data.source")


def test_create_calls_the_builder() -> None:
    made: Any = create(TABLE, "lens", {"blades": 5}, "data", "the moon")
    assert made == {"subject": "the moon", "focus": 0.05, "blades": 5}


def test_create_refuses_an_unknown_option() -> None:
    with pytest.raises(ConfigError, match=r"data\.blade is not a key of 'lens' \(did you mean 'blades'\?\)"):
        create(TABLE, "lens", {"blade": 5}, "data", "the moon")


def test_there_is_no_hint_where_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["focus"]) == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_are_finite(value: float) -> None:
    assert "data.focus" in complaint({"focus": value})
    assert "a finite number" in complaint({"stops": [2.0, value]})
