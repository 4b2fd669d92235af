"""Conversion of plain data to a tree of sections, with all errors in one error.

Defines the form (sections, keys, types, rules); the keys are in `config`.
"""

import dataclasses
import difflib
import math
import re
import reprlib
import types
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import cattrs
import equinox as eqx

from jaxrefine.data import InputError


class Rule(NamedTuple):
    """A condition on the values of a section, in addition to their types.

    Attributes:
        key: The key at which an error is reported; dots lead into a subsection.
        holds: Tests the section. If other values are invalid, it sees only the valid ones,
            and is skipped if it reads an invalid one.
        remedy: What would be right; `{other_key}` stands for that key's value.
    """

    key: str
    holds: Callable[[Any], bool]
    remedy: str


class Section(eqx.Module):
    """A mapping of the YAML file; its fields are the keys.

    Types are checked when a section is read (`structure`), rules whenever it is made.
    A section with `enabled: false` has no effect, so its rules do not apply. A field with
    metadata `{"key": False}` is not a key of the file. Keys in `ignored`, which Leopard-EM
    writes and jaxrefine does not use, are accepted.
    """

    rules: ClassVar[tuple[Rule, ...]] = ()
    ignored: ClassVar[tuple[str, ...]] = ()

    def __check_init__(self) -> None:
        errors = _broken(self.rules, self)
        if errors:
            raise InputError(str(message) for message in errors)


SectionT = TypeVar("SectionT", bound=Section)


class ConfigError(NamedTuple):
    """One error: key, value, and what would be right."""

    key: str
    found: str
    remedy: str

    def below(self, parent: str) -> "ConfigError":
        """The same error, with its key as seen from one level higher."""
        dot = "." if self.key and not self.key.startswith("[") else ""
        return self._replace(key=f"{parent}{dot}{self.key}")

    def __str__(self) -> str:
        return f"{self.key or 'top level'}: {self.found} — {self.remedy}"


class _ConfigErrors(Exception):
    """Errors collected from the tree; `sound` holds the valid values."""

    def __init__(self, errors: Iterable[ConfigError], sound: Any = None):
        super().__init__()
        self.errors = list(errors)
        self.sound = sound


# --- Values as messages show them -------------------------------------------------


class _ValueRepr(reprlib.Repr):
    """Values as YAML writes them, in one short line."""

    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict = 2, 6, 3
        self.maxstring = self.maxother = self.maxlong = 60

    def repr_bool(self, x: bool, level: int) -> str:
        return "true" if x else "false"

    def repr_NoneType(self, x: None, level: int) -> str:
        return "null"

    def repr_tuple(self, x: tuple, level: int) -> str:
        return self.repr_list(list(x), level)

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if abs(x) < 10**40 else "a very large number"


_shown = _ValueRepr()


def show(value: Any) -> str:
    """A value as shown in messages."""
    return _shown.repr(value)


def key_text(key: Hashable) -> str:
    """A key as shown in messages, quoted if necessary."""
    plain = isinstance(key, str) and key.isprintable() and 0 < len(key) <= 60
    return str(key) if plain and key == str(key).strip() else show(key)


def _describe(kind: Any) -> str:
    """Description of the values of a type, for 'must be …'."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return str(args[1])
    if origin is Literal:
        return " or ".join(args)
    if _is_union(kind):
        return " or ".join(_describe(member) for member in args)
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a finite number",
        str: "text (in quotes if it looks like something else)",
        type(None): "null",
    }
    return names.get(kind, "a list")


# --- Structure: plain data to sections --------------------------------------------


def _broken(rules: Iterable[Rule], values: Any) -> list[ConfigError]:
    """Errors of the rules that are violated by the values present."""
    if getattr(values, "enabled", True) is False:
        return []
    errors = []
    for rule in rules:
        try:
            if rule.holds(values):
                continue
        except AttributeError:  # it uses a value that is missing or invalid
            if isinstance(values, Section):
                raise
            continue
        shown = {name: show(value) for name, value in vars(values).items()}
        found = show(attrgetter(rule.key)(values))
        errors.append(ConfigError(rule.key, found, rule.remedy.format_map(shown)))
    return errors


def _wrong(value: Any, kind: Any) -> _ConfigErrors:
    return _ConfigErrors([ConfigError("", show(value), f"must be {_describe(kind)}")])


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _keys(kind: type[Section]) -> Iterator[dataclasses.Field]:
    return (f for f in dataclasses.fields(kind) if f.metadata.get("key", True))


def _structure_exact(value: Any, kind: type) -> Any:
    """bool, int, str, null: exactly this type. A bool is not an int, and text is not a
    number."""
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise _wrong(value, kind)


# YAML 1.1 reads 1e-3, without a point, as text.
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


def _structure_float(value: Any, kind: type) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise _wrong(value, kind)


def _structure_literal(value: Any, kind: Any) -> str:
    if isinstance(value, str) and value in get_args(kind):
        return value
    raise _wrong(value, kind)


def _structure_tuple(value: Any, kind: Any) -> tuple:
    if not isinstance(value, list | tuple):
        raise _wrong(value, kind)
    kinds = get_args(kind)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise _wrong(value, kind)
    items, errors = [], []
    for index, (item, item_kind) in enumerate(zip(value, kinds, strict=True)):
        try:
            items.append(_converter.structure(item, item_kind))
        except _ConfigErrors as error:
            errors += [message.below(f"[{index}]") for message in error.errors]
    if errors:
        raise _ConfigErrors(errors)
    return tuple(items)


def _structure_union(value: Any, kind: Any) -> Any:
    for member in get_args(kind):
        try:
            return _converter.structure(value, member)
        except _ConfigErrors as error:
            if any(message.key for message in error.errors):  # a list with invalid items
                raise
    raise _wrong(value, kind)


def _structure_annotated(value: Any, kind: Any) -> Any:
    """A value whose annotation describes what it must be."""
    try:
        return _converter.structure(value, get_args(kind)[0])
    except _ConfigErrors as error:
        if any(message.key for message in error.errors):
            raise
        raise _wrong(value, kind) from None


def _structure_section(data: Any, kind: type[Section]) -> Section:
    """All errors of a section: unknown keys, missing keys, values, then rules."""
    data = {} if data is None else data
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.name: field for field in _keys(kind)}
    if not isinstance(data, Mapping):
        known = ", ".join(fields)
        raise _ConfigErrors(
            [ConfigError("", show(data), f"must be a mapping with keys {known}")]
        )
    errors, sound = [], {}
    for key in data:
        if key not in fields and key not in kind.ignored:
            name = key_text(key)
            nearest = difflib.get_close_matches(name, fields, 1, cutoff=0.0)[0]
            remedy = f"unknown key; the nearest valid one is {nearest}"
            errors.append(ConfigError(name, show(data[key]), remedy))
    for name, field in fields.items():
        if name not in data and field.default is not dataclasses.MISSING:
            sound[name] = field.default
        elif name not in data and not _is_section(hints[name]):
            remedy = f"required: {_describe(hints[name])}"
            errors.append(ConfigError(name, "missing", remedy))
        else:
            try:
                sound[name] = _converter.structure(data.get(name), hints[name])
            except _ConfigErrors as error:
                errors += [message.below(name) for message in error.errors]
                if error.sound is not None:
                    sound[name] = error.sound
    errors += _broken(kind.rules, types.SimpleNamespace(**sound))
    if errors:
        raise _ConfigErrors(errors, types.SimpleNamespace(**sound))
    return kind(**sound)


_converter = cattrs.Converter(detailed_validation=False)
for _kind in (bool, int, str, type(None)):
    _converter.register_structure_hook(_kind, _structure_exact)
_converter.register_structure_hook(float, _structure_float)
for _applies, _hook in (
    (lambda kind: get_origin(kind) is Literal, _structure_literal),
    (lambda kind: get_origin(kind) is tuple, _structure_tuple),
    (_is_union, _structure_union),
    (lambda kind: get_origin(kind) is Annotated, _structure_annotated),
    (_is_section, _structure_section),
):
    _converter.register_structure_hook_func(_applies, _hook)


def structure(
    kind: type[SectionT], data: Any, source: str, earlier: Iterable[ConfigError] = ()
) -> SectionT:
    """Make a section from plain data.

    Args:
        kind: The section's class.
        data: Mappings, lists and scalars, as a YAML file yields them.
        source: Name of the data in messages: the path of the file.
        earlier: Errors found in the file earlier.

    Raises:
        InputError: With all errors, earlier ones first.
    """
    errors, section = list(earlier), None
    try:
        section = _converter.structure(data, kind)
    except _ConfigErrors as error:
        errors += error.errors
    if errors or section is None:
        raise InputError(f"{source}: {message}" for message in errors)
    return section
