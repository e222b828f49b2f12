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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from fedmtl.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


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
    return create_model("Options", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)


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

    try:
        checked = _schema(build).model_validate(dict(given))
    except ValidationError as error:
        known = [option.name for option in options_of(build)]
        raise ConfigError("\n".join(explain(error, section, known, f" of {owner!r}"))) from None
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


def explain(error: ValidationError, section: str, known: Iterable[str], owner: str = "") -> list[str]:
    """One line for each fault that pydantic found: the key, what is wrong, what is allowed, the nearest valid key."""
    known = list(known)
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in (section, *fault["loc"]) if part != "")
        if fault["type"] == "extra_forbidden":
            name = str(fault["loc"][-1])
            lines.append(f"{key} is not a key{owner}{did_you_mean(name, known)}; known: {', '.join(known) or 'none'}")
        elif fault["type"] == "missing":
            lines.append(f"{key} is missing{owner}")
        else:
            lines.append(f"{key} = {fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}")
    return lines


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
