"""Typed options: a section of a config becomes a frozen dataclass, once.

The fields of the dataclass say which keys a section has, of which type, and
which values stand where the section is silent. Whatever else a section holds
is refused in one line.
"""

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from beartype.door import is_bearable

from faceedit_jax.core.errors import UserError, as_user_error

T = TypeVar("T")

# Linen gives every module these two fields; no config names them.
_LINEN = ("parent", "name")
# A net's section may say, beside the fields of its module, which of several
# nets it is, and the file that it comes from.
_NO_FIELDS = ("kind", "weights")


def build(
  cls: type[T], section: Mapping[str, Any], where: str, /, **given: Any
) -> T:
  """Builds a dataclass, or a Linen module, from a section of a config.

  Args:
    cls: dataclass whose annotations say what each key may hold: numbers,
      texts, `Literal` choices, tuples, mappings, `X | None`, and dataclasses
      for sections inside the section.
    section: {key: value}.
    where: the section's place in the config, for errors
      ("config.stage.gan.recipe").
    **given: fields that the program supplies; a section must not have them.

  Returns:
    The dataclass. Lists have become tuples, and whole numbers floats where
    floats are wanted.

  Raises:
    UserError: one line for an unknown key (with the nearest known one), a
      missing key, a value of another type, or a ValueError of `cls` itself.
  """
  hints = _hints(cls)
  known = {
    field.name: field
    for field in dataclasses.fields(cls)
    if field.init and field.name not in given
  }
  if "parent" in known:
    known = {name: f for name, f in known.items() if name not in _LINEN}
  needed = {
    name
    for name, field in known.items()
    if field.default is dataclasses.MISSING
    and field.default_factory is dataclasses.MISSING
  }
  values = _values(
    section, {name: hints[name] for name in known}, needed, where
  )
  with as_user_error(where):
    return cls(**values, **given)


def build_kind(
  kinds: Mapping[str, type],
  section: Mapping[str, Any],
  where: str,
  default: str | None = None,
  **fallbacks: Any,
) -> Any:
  """Builds the dataclass that a section names by its key `kind`.

  Args:
    kinds: {name: dataclass}.
    section: {key: value}, `kind` among them.
    where: the section's place in the config, for errors.
    default: kind where the section names none.
    **fallbacks: values of fields that the section leaves out; those that the
      dataclass does not have are ignored.

  Returns:
    The dataclass, see `build`.

  Raises:
    UserError: one line for a missing or unknown kind, or as `build` does.
  """
  section = dict(section)
  kind = section.pop("kind", default)
  if kind is None:
    raise UserError(f"{where} lacks the key 'kind'{nearest('', kinds)}")
  if kind not in kinds:
    raise UserError(
      f"{where}.kind is {kind!r}, which there is not{nearest(str(kind), kinds)}"
    )
  fields = {field.name for field in dataclasses.fields(kinds[kind])}
  known = {k: v for k, v in fallbacks.items() if k in fields}
  return build(kinds[kind], {**known, **section}, where)


def call(
  function: Callable[..., T], section: Mapping[str, Any], where: str
) -> T:
  """Calls a function with a section of a config.

  Args:
    function: its annotated arguments say what each key may hold, as of `build`.
    section: {argument: value}.
    where: the section's place in the config, for errors.

  Returns:
    What the function returns.

  Raises:
    UserError: as of `build`.
  """
  parameters = inspect.signature(function).parameters
  hints = typing.get_type_hints(function)
  known = {name: hints.get(name, Any) for name in parameters}
  needed = {n for n, p in parameters.items() if p.default is p.empty}
  values = _values(section, known, needed, where)
  with as_user_error(where):
    return function(**values)


def _values(
  section: Mapping[str, Any],
  hints: Mapping[str, Any],
  needed: Collection[str],
  where: str,
) -> dict[str, Any]:
  """A section's values as `hints` say; it must have the `needed` ones."""
  # A ConfigDict is no Mapping, nor are the sections inside it.
  values = {
    key: value.to_dict() if hasattr(value, "to_dict") else value
    for key, value in dict(section).items()
  }
  for key in values:
    if key not in hints:
      raise UserError(f"{where} has no key {key!r}{nearest(key, hints)}")
  for name, hint in hints.items():
    if name in values:
      values[name] = convert(values[name], hint, f"{where}.{name}")
    elif name in needed:
      raise UserError(f"{where} lacks the key {name!r}")
  return values


def build_net(
  cls: type[T], section: Mapping[str, Any], where: str, **given: Any
) -> T:
  """Builds a Linen module from its section of a config's `nets`.

  Args:
    cls: Linen module.
    section: {field: value}; `kind` and `weights` are nothing of the module's.
    where: the section's place in the config, for errors ("config.nets.unet").
    **given: fields that the program supplies; a section must not have them.

  Returns:
    The module.

  Raises:
    UserError: as of `build`.
  """
  return build(cls, net_fields(section), where, **given)


def net_fields(section: Mapping[str, Any]) -> dict[str, Any]:
  """A net's section without what is no field of its module."""
  return {k: v for k, v in dict(section).items() if k not in _NO_FIELDS}


def nearest(name: str, known: Iterable[str]) -> str:
  """The end of an error about an unknown name: the nearest, or all known."""
  known = sorted(known)
  near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
  if near:
    return f"; did you mean {near[0]!r}?"
  return f"; it has {', '.join(known)}" if known else "; it has none"


def convert(value: Any, hint: Any, where: str) -> Any:
  """`value` as `hint` says, or a UserError in one line.

  Args:
    value: plain value of a config.
    hint: type annotation.
    where: the value's place in the config, for errors.
  """
  try:
    return _convert(value, hint, where)
  except _Mismatch as error:
    raise UserError(f"{where} is {value!r}, wanted {describe(hint)}") from error


class _Mismatch(Exception):
  """A value that is not of the wanted type."""


def _convert(value: Any, hint: Any, where: str) -> Any:
  origin, inside = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return value
  if origin is typing.Annotated:
    return _convert(value, inside[0], where)
  if origin in (typing.Union, types.UnionType):
    return _first_fit(value, inside, where)
  if dataclasses.is_dataclass(hint):
    if isinstance(value, hint):
      return value
    if not isinstance(value, Mapping):
      raise _Mismatch
    return build(hint, value, where)
  if origin is tuple:
    return _tuple(value, inside, where)
  if isinstance(origin, type) and issubclass(origin, Mapping):
    if not isinstance(value, Mapping):
      raise _Mismatch
    return {k: convert(v, inside[1], f"{where}.{k}") for k, v in value.items()}
  if hint is float and type(value) is int:
    return float(value)
  # For Python True is an int, for a config it is not.
  if isinstance(value, bool) and hint in (int, float):
    raise _Mismatch
  if not is_bearable(value, hint):
    raise _Mismatch
  return value


def _first_fit(value: Any, hints: Iterable[Any], where: str) -> Any:
  """`value` as the first of several types that it fits.

  A mapping is meant for the dataclass among them, whose own error says more.
  """
  for hint in hints:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
      return build(hint, value, where)
  # As it is, before any conversion: 1 stays an int in `int | float`.
  exact = [h for h in hints if h is type(value)]
  for hint in (*exact, *hints):
    try:
      return _convert(value, hint, where)
    except _Mismatch:
      continue
  raise _Mismatch


def _tuple(value: Any, inside: tuple, where: str) -> tuple:
  """A list or tuple whose members are what `inside` says."""
  if not isinstance(value, list | tuple):
    raise _Mismatch
  if inside and inside[-1] is Ellipsis:
    inside = (inside[0],) * len(value)
  if inside == ((),):
    inside = ()
  if len(inside) != len(value):
    raise _Mismatch
  return tuple(
    convert(member, hint, f"{where}[{i}]")
    for i, (member, hint) in enumerate(zip(value, inside, strict=True))
  )


_WORDS = {
  int: "a whole number",
  float: "a number",
  bool: "True or False",
  str: "a text",
  types.NoneType: "None",
}


def describe(hint: Any) -> str:
  """A type annotation in words, for errors."""
  origin, inside = typing.get_origin(hint), typing.get_args(hint)
  if origin is typing.Annotated:
    return describe(inside[0])
  if origin is typing.Literal:
    return " or ".join(map(repr, inside))
  if origin in (typing.Union, types.UnionType):
    return " or ".join(map(describe, inside))
  if origin is tuple:
    if inside and inside[-1] is Ellipsis:
      return f"a list, each entry {describe(inside[0])}"
    return f"a list of {len(inside)}: {', '.join(map(describe, inside))}"
  if isinstance(origin, type) and issubclass(origin, Mapping):
    return "a section {key: value}"
  if dataclasses.is_dataclass(hint):
    keys = [f.name for f in dataclasses.fields(hint) if f.init]
    return f"a section with {', '.join(keys)}"
  return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _hints(cls: type) -> dict[str, Any]:
  """{field: annotation}; what cannot be read as a type may hold anything."""
  try:
    return typing.get_type_hints(cls)
  except (NameError, TypeError):
    return dict.fromkeys((f.name for f in dataclasses.fields(cls)), Any)
