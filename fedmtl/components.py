"""Named parts with options: how a configuration section becomes a call.

A data source, a partition, a model, a balancer, a device profile and a strategy are all the same to a configuration: a
name, looked up in one table, and options. The options of a component are the keyword-only parameters of its builder,
each annotated with what it means and its range, so that the signature is the only place that says so::

    def dirichlet(labels, clients, seed, *, alpha: Annotated[float, Param("concentration", gt=0)] = 0.3): ...
"""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fedmtl.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails


Part = TypeVar("Part")


@dataclass(frozen=True)
class Param:
    """What an option means, the range it must lie in, and where its default comes from.

    Parameters
    ----------
    help
        One line, with the unit.
    gt, ge, lt, le
        Bounds of the value.
    source
        Provenance of the default: ``"paper"``, ``"authors' code"`` or ``"ours"``.
    """

    help: str
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    source: str = "ours"

    @property
    def bounds(self) -> dict[str, Any]:
        """The bounds that are set, as keyword arguments of a pydantic field."""
        return {name: bound for name in ("gt", "ge", "lt", "le") if (bound := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Option:
    """An option of a component, as read from the builder's signature."""

    name: str
    annotation: Any
    default: Any
    param: Param

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is inspect.Parameter.empty

    @property
    def allowed(self) -> str:
        """Type and range in words, such as ``"number, > 0"`` or ``"'gradient' or 'model'"``."""
        bounds = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        limits = [f"{bounds[name]} {bound:g}" for name, bound in self.param.bounds.items()]
        return ", ".join([_in_words(self.annotation), *limits])


_WORDS: dict[Any, str] = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "unset"}


def _in_words(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _in_words(arguments[0])
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(argument) for argument in arguments)
    if origin is dict:
        return "section"
    if origin in (list, tuple, Sequence):
        return f"list of {_in_words(arguments[0])}"
    return _WORDS.get(annotation, str(getattr(annotation, "__name__", annotation)))


@functools.cache
def options_of(build: Callable[..., Any]) -> tuple[Option, ...]:
    """The options of a component: the keyword-only parameters of its builder."""
    target = build.__init__ if inspect.isclass(build) else build
    hints = get_type_hints(target, include_extras=True)
    options = []
    for parameter in inspect.signature(build).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        annotation = hints[parameter.name]
        param = next((m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Param)), Param(""))
        options.append(Option(parameter.name, annotation, parameter.default, param))
    return tuple(options)


def summary_of(build: Callable[..., Any]) -> str:
    """First line of the builder's docstring."""
    return (inspect.getdoc(build) or "").partition("\n")[0]


def choose(table: Mapping[str, Callable[..., Part]], name: str, key: str) -> Callable[..., Part]:
    """The component of that name, or an error that names the key, the choices and the nearest one."""
    if name not in table:
        raise ConfigError(f"{key} = {name!r} is unknown{did_you_mean(name, table)}; known: {', '.join(table)}")
    return table[name]


@functools.cache
def _schema(build: Callable[..., Any]) -> type[BaseModel]:
    from pydantic import ConfigDict, Field, create_model

    fields: dict[str, Any] = {}
    for option in options_of(build):
        default = ... if option.default is inspect.Parameter.empty else option.default
        fields[option.name] = (option.annotation, Field(default, **option.param.bounds))
    strict = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    return create_model("Options", __config__=strict, **fields)


def check_options(build: Callable[..., Any], given: Mapping[str, Any], section: str, owner: str) -> dict[str, Any]:
    """The component's options, defaults filled in.

    Parameters
    ----------
    build
        The component's builder.
    given
        Options that were set.
    section, owner
        For the error message: the configuration section and the component's name.

    Raises
    ------
    ConfigError
        If a key is unknown or a value has the wrong type or lies outside its range.
    """
    from pydantic import ValidationError

    options = {option.name: option for option in options_of(build)}
    try:
        # As JSON the check is strict (no text for a number), yet a list may stand for a tuple: TOML has only lists.
        checked = _schema(build).model_validate_json(json.dumps(dict(given), default=str))
    except ValidationError as error:
        lines = []
        for (name, *_), faults in by_key(error.errors(), lambda path: path[:1]).items():
            meaning = options[name].param.help if name in options else ""
            lines.append(explain(f"{section}.{name}", faults, options, f" of {owner!r}", meaning))
        raise ConfigError("\n".join(lines)) from None
    return {name: getattr(checked, name) for name in type(checked).model_fields}


def create(
    table: Mapping[str, Callable[..., Part]], name: str, options: Mapping[str, Any], section: str, *arguments: Any
) -> Part:
    """Call the builder of that name with these options.

    Only the options' names are checked here, which needs nothing but the standard library and costs microseconds;
    their types and ranges are `check_options`' task, once, when a configuration is read.

    Raises
    ------
    ConfigError
        If the name or an option is unknown.
    """
    build = choose(table, name, f"{section}.name")
    known = [option.name for option in options_of(build)]
    for key in options:
        if key not in known:
            hint = f"{did_you_mean(key, known)}; known: {', '.join(known) or 'none'}"
            raise ConfigError(f"{section}.{key} is not a key of {name!r}{hint}")
    return build(*arguments, **options)


Path = tuple[Any, ...]


def by_key(faults: Iterable[ErrorDetails], key: Callable[[Path], Path]) -> dict[Path, list[ErrorDetails]]:
    """Faults that pydantic found, grouped by the key of the configuration that they are about.

    Pydantic's own path leads further, into lists and into every alternative of a union.
    """
    groups: dict[Path, list[ErrorDetails]] = {}
    for fault in faults:
        groups.setdefault(key(fault["loc"]), []).append(fault)
    return groups


def explain(key: str, faults: Sequence[ErrorDetails], known: Iterable[str], owner: str = "", meaning: str = "") -> str:
    """What is wrong with a key, in one line: the value, what is allowed, the nearest valid key or value.

    Parameters
    ----------
    key
        The key as the user writes it, with its section.
    faults
        What pydantic found there; several if the value fits none of several types.
    known
        The keys that may stand in this place.
    owner, meaning
        Whose key it is, as in ``" of 'dirichlet'"``, and what it means.
    """
    fault = faults[0]
    if fault["type"] == "extra_forbidden":
        known = list(known)
        hint = did_you_mean(key.rpartition(".")[2], known)
        return f"{key} is not a key{owner}{hint}; known: {', '.join(known) or 'none'}"
    if fault["type"] == "missing":
        return f"{key} is missing" + (f" ({meaning})" if meaning else "")
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key} = {fault['input']!r}: is a section, so write [{key}] and its keys below"
    expected = " or ".join(dict.fromkeys(_expected(one) for one in faults))
    choices = [
        choice for one in faults for choice in re.findall(r"'([^']*)'", str(one.get("ctx", {}).get("expected", "")))
    ]
    hint = did_you_mean(fault["input"], choices) if isinstance(fault["input"], str) else ""
    return f"{key} = {fault['input']!r}: should be {expected}{hint}" + (f" ({meaning})" if meaning else "")


_PLAIN = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": 'a list, such as ["a", "b"]',
    "tuple_type": "a list, such as [1, 2]",
    "none_required": "left out",
}


def _expected(fault: ErrorDetails) -> str:
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return _PLAIN.get(fault["type"], message)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
