"""Named parts with options: how a configuration section becomes a call.

A data source, a partition, a model, a balancer, a device profile and a strategy are all the same to a configuration: a
name, looked up in one table, and options. The options of a component are the keyword-only parameters of its builder,
each annotated with what it means and its range, so that the signature is the only place that says so::

    def dirichlet(labels, clients, seed, *, alpha: Annotated[float, Param("concentration", gt=0)] = 0.3): ...

A builder that composes others takes their options as its own without naming them again::

    def fedbuff(task_weights=None, *, server_rate: ServerRate = 1.0, **buffer: Annotated[Any, OptionsOf(Buffered)]): ...
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fedmtl.config_errors import by_key, did_you_mean, explain
from fedmtl.errors import ConfigError
from fedmtl.paths import absolute

if TYPE_CHECKING:
    from pydantic import BaseModel


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
    path
        Whether it is the path of a file or folder that is read, text that may be empty (:mod:`fedmtl.paths`). What lies
        there is an input of the experiment: it counts by its contents.
    """

    help: str
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    source: str = "ours"
    path: bool = False

    __is_annotated_types_grouped_metadata__ = True

    def __iter__(self) -> Iterator[Any]:
        """The bounds as pydantic reads them in an annotation, so that they are checked wherever it stands."""
        import annotated_types

        return iter([getattr(annotated_types, name.capitalize())(bound) for name, bound in self.bounds.items()])

    def by(self, source: str, **bounds: Any) -> Param:
        """The same meaning with a default from elsewhere, and where needed other bounds."""
        return dataclasses.replace(self, source=source, **bounds)

    @property
    def bounds(self) -> dict[str, Any]:
        """The bounds that are set, by name."""
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
    def may_be_unset(self) -> bool:
        """Whether None is one of its values."""
        annotated = get_origin(self.annotation) is Annotated
        return type(None) in get_args(get_args(self.annotation)[0] if annotated else self.annotation)

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


class OptionsOf:
    """Annotates ``**options`` of a builder that takes the options of other builders as its own.

    An option that the builder states itself, because its default differs, say, is not taken from them.

    Parameters
    ----------
    builders
        The other builders.
    without
        Their options that are not taken, because the builder settles them itself.
    """

    def __init__(self, *builders: Callable[..., Any], without: Iterable[str] = ()) -> None:
        self.builders = builders
        self.without = frozenset(without)

    def divide(self, given: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Options that were given together, for each of the builders those that are its own.

        Raises
        ------
        TypeError
            If an option is none of any.
        """
        own = [{option.name for option in options_of(build)} - self.without for build in self.builders]
        if strangers := sorted(given.keys() - set().union(*own)):
            names = ", ".join(build.__name__ for build in self.builders)
            raise TypeError(f"{strangers[0]!r} is an option of none of {names}")
        return [{name: value for name, value in given.items() if name in names} for names in own]


@functools.cache
def options_of(build: Callable[..., Any]) -> tuple[Option, ...]:
    """The options of a component: the keyword-only parameters of its builder, and those of the builders it composes.

    Raises
    ------
    TypeError
        If two of the composed builders have an option of one name that differs: the composing one must then state it.
    """
    target = build.__init__ if inspect.isclass(build) else build
    hints = get_type_hints(target, include_extras=True)
    options: dict[str, Option] = {}
    for parameter in inspect.signature(build).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            annotation = hints[parameter.name]
            options[parameter.name] = Option(
                parameter.name, annotation, parameter.default, _metadata(annotation, Param) or Param("")
            )
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            composed = _metadata(hints.get(parameter.name), OptionsOf) or OptionsOf()
            taken = [option for inner in composed.builders for option in options_of(inner)]
            stated = composed.without.union(options)
            if strangers := composed.without - {option.name for option in taken}:
                raise TypeError(f"{build.__name__} leaves out {min(strangers)!r}, an option of none of its builders")
            for option in taken:
                if option.name not in stated and options.setdefault(option.name, option) != option:
                    raise TypeError(f"{build.__name__} composes two options {option.name!r}: it must state its own")
    return tuple(options.values())


def path_options(build: Callable[..., Any]) -> list[str]:
    """The options of a component that name a file or folder which it reads."""
    return [option.name for option in options_of(build) if option.param.path]


def fields_of(section: type[BaseModel]) -> tuple[Option, ...]:
    """The keys of a section of the configuration, which are described as options are."""
    hints = get_type_hints(section, include_extras=True)
    return tuple(
        Option(
            name,
            hints[name],
            inspect.Parameter.empty if field.is_required() else field.default,
            _metadata(hints[name], Param) or Param(""),
        )
        for name, field in section.model_fields.items()
    )


_Metadata = TypeVar("_Metadata")


def _metadata(annotation: Any, kind: type[_Metadata]) -> _Metadata | None:
    return next((m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, kind)), None)


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
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {}
    for option in options_of(build):
        default = ... if option.default is inspect.Parameter.empty else option.default
        fields[option.name] = (option.annotation, default)
    strict = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    return create_model("Options", __config__=strict, **fields)


def check_options(build: Callable[..., Any], given: Mapping[str, Any], section: str, owner: str) -> dict[str, Any]:
    """The component's options, defaults filled in and paths absolute.

    Parameters
    ----------
    build
        The component's builder.
    given
        Options that were set; None for one that is unset: that is its value if it may be, and else its default.
    section, owner
        For the error message: the configuration section and the component's name.

    Raises
    ------
    ConfigError
        If a key is unknown, a value has the wrong type or lies outside its range, or a path is relative to nothing.
    """
    from pydantic import ValidationError

    options = {option.name: option for option in options_of(build)}
    given = {
        name: value
        for name, value in given.items()
        if value is not None or name not in options or options[name].may_be_unset
    }
    try:
        # As JSON the check is strict (no text for a number), yet a list may stand for a tuple: TOML has only lists.
        checked = _schema(build).model_validate_json(json.dumps(given, default=str))
    except ValidationError as error:
        lines = []
        for (name, *_), faults in by_key(error.errors(), lambda path: path[:1]).items():
            meaning = options[name].param.help if name in options else ""
            lines.append(explain(f"{section}.{name}", faults, options, f" of {owner!r}", meaning))
        raise ConfigError("\n".join(lines)) from None
    values = {name: getattr(checked, name) for name in type(checked).model_fields}
    paths = {name: absolute(given[name], f"{section}.{name}") for name in path_options(build) if given.get(name)}
    return values | paths


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
