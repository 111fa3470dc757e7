"""Configs: plain values in a locked ml_collections.ConfigDict.

A config file has `get_config(variant)`, and may list its variants in
`VARIANTS`. Nothing below the recipes reads a config.
"""

import ast
import dataclasses
import difflib
import importlib.util
import inspect
import math
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from faceedit_jax.core import options, signs
from faceedit_jax.core.errors import UserError


class ConfigError(UserError):
  """A config or an override that cannot be used, in one line."""


def load(source: str) -> ConfigDict:
  """Loads a config file.

  Args:
    source: "configs/x.py" for the file's default, "configs/x.py:variant", or
      "configs/x.py:variant=word" where a variant takes one.

  Returns:
    The locked config; lists have become tuples.

  Raises:
    ConfigError: the file is missing, has no `get_config`, or knows no such
      variant.
  """
  name, _, variant = source.partition(":")
  path = pathlib.Path(name)
  if not path.is_file():
    raise ConfigError(_no_file(path))
  if path.suffix != ".py":
    raise ConfigError(f"{name} is no Python file, wanted NAME.py (--config)")
  spec = importlib.util.spec_from_file_location(
    f"faceedit_jax_config_{path.stem}", path
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  get_config = getattr(module, "get_config", None)
  if get_config is None:
    raise ConfigError(f"{name} has no function get_config(variant) (--config)")
  variants = getattr(module, "VARIANTS", None)
  known = variant.partition("=")[0]
  if variant and variants is not None and known not in variants:
    raise ConfigError(_unknown_variant(name, variant, variants))
  if variant and not inspect.signature(get_config).parameters:
    raise ConfigError(f"{name} has no variants, got {variant!r} (--config)")
  try:
    config = get_config(variant) if variant else get_config()
  except KeyError as error:
    if not variant or error.args != (variant,):
      raise
    raise ConfigError(_unknown_variant(name, variant, ())) from error
  except ValueError as error:
    raise ConfigError(f"{error} (--config)") from error
  return from_dict(config)


def _no_file(path: pathlib.Path) -> str:
  """Where a config file that is not there may be meant."""
  # A name below the project's own folder, said from another one.
  ours = pathlib.Path(__file__).parents[2] / path
  if ours.is_file():
    near = f"there is {ours}"
  else:
    near = sorted(str(p) for p in path.parent.glob("[!_]*.py"))
    near = f"{path.parent} has {', '.join(near) or 'none'}"
  return f"no config file {str(path)!r}; {near} (--config)"


def _unknown_variant(name: str, variant: str, variants: Iterable[str]) -> str:
  known = [v for v in variants if v]
  listed = f"; it has {', '.join(known)}" if known else ""
  return (
    f"{name} has no variant {variant!r}{listed}{_did_you_mean(variant, known)}"
  )


def _did_you_mean(name: str, known: Iterable[str]) -> str:
  near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f". Did you mean {near[0]!r}?" if near else ""


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
  """A locked config of nested plain values; lists become tuples."""
  if isinstance(values, ConfigDict):
    values = values.to_dict()
  config = ConfigDict(_plain(values, ""))
  config.lock()
  return config


def _plain(value: Any, path: str) -> Any:
  """`value` as nested dicts and tuples of plain values."""
  if isinstance(value, ConfigDict):
    value = value.to_dict()
  if isinstance(value, Mapping):
    return {k: _plain(v, f"{path}.{k}".lstrip(".")) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return tuple(_plain(v, path) for v in value)
  if value is None or isinstance(value, bool | int | float | str):
    return value
  raise ConfigError(
    f"config key {path} holds a {type(value).__name__}; wanted a number, text, "
    "bool, None, tuple or dictionary"
  )


def net_fields(config: ConfigDict) -> dict[str, dict[str, Any]]:
  """{net: fields of its module} of a config's `nets`."""
  nets = config.nets.to_dict()
  return {net: options.net_fields(section) for net, section in nets.items()}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"stage.x.steps": value} of every value in a config; dots join keys."""
  flat = {}
  for key, value in config.items():
    path = f"{prefix}{key}"
    if isinstance(value, Mapping | ConfigDict):
      flat.update(flatten(value, f"{path}."))
    else:
      flat[path] = value
  return flat


@dataclasses.dataclass(frozen=True)
class _Missing:
  """Stands for a key that one of two configs lacks."""


def diff(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
  """What differs between two configs.

  Args:
    a: the config before.
    b: the config after.

  Returns:
    One line per key, "" if they agree: `stage.x.steps: 100 -> 200`,
    `key: added 1` or `key: removed 1`.
  """
  before, after = (flatten(_plain(c, "")) for c in (a, b))
  lines = []
  for key in sorted(before | after):
    old, new = before.get(key, _Missing()), after.get(key, _Missing())
    if isinstance(old, _Missing):
      lines.append(f"{key}: added {new!r}")
    elif isinstance(new, _Missing):
      lines.append(f"{key}: removed {old!r}")
    elif (type(old), old) != (type(new), new):
      lines.append(f"{key}: {old!r} -> {new!r}")
  return "\n".join(lines)


def split_args(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Takes the overrides out of a command line.

  Args:
    argv: arguments such as "--config.stage.x.steps=200" and "--workdir=runs/a".

  Returns:
    (overrides "stage.x.steps=200" for `override`, the other arguments).
  """
  mark = "--config."
  ours = [a.removeprefix(mark) for a in argv if a.startswith(mark)]
  return ours, [a for a in argv if not a.startswith(mark)]


def override(config: ConfigDict, assignments: Iterable[str]) -> ConfigDict:
  """A copy of a config with some values replaced.

  Args:
    config: the config to start from.
    assignments: "dotted.key=value" texts; values are read as Python literals,
      and as text where the config holds text. A list may also be given as
      bare words, `a,b` or `[a,b]`. The members of a list must be what the old
      ones are.

  Returns:
    The new, locked config.

  Raises:
    ConfigError: an unknown key, with the nearest known one, or a value of
      another type.
  """
  changed = config.to_dict()
  for assignment in assignments:
    key, equals, text = assignment.partition("=")
    if not equals:
      raise ConfigError(f"override {assignment!r}, wanted key=value")
    known = flatten(changed)
    if key not in known:
      inside = any(k.startswith(f"{key}.") for k in known)
      raise ConfigError(
        f"config key {key!r} is a section, wanted one of its keys"
        if inside
        else f"config has no key {key!r}{_did_you_mean(key, known)}"
      )
    *parents, last = key.split(".")
    section = changed
    for parent in parents:
      section = section[parent]
    section[last] = _parse(key, text, known[key])
  return from_dict(changed)


def _parse(key: str, text: str, old: Any) -> Any:
  """The text as a value of the type of `old`."""
  if isinstance(old, str):
    return text
  value = _plain(_literal(text), key)
  # A None in the config stands for a value of any type, and anything that may
  # be given may be taken back.
  if old is None or value is None:
    return value
  if isinstance(old, tuple) and not isinstance(value, tuple):
    value = _listed(text) if isinstance(value, str) else (value,)
  fitted = _fit(value, text, old)
  if fitted is None:
    raise ConfigError(
      f"config key {key!r} got {text!r}, wanted {_wanted(old)} like {old!r}"
    )
  return fitted


def _literal(text: str) -> Any:
  """A Python literal, a typographic minus for a plain one, or the text."""
  plain = signs.plain_minus(text)
  try:
    with warnings.catch_warnings(action="ignore"):  # of Python, on odd literals
      words = {"true": "True", "false": "False"}
      return ast.literal_eval(words.get(plain, plain))
  except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
    return text


def _listed(text: str) -> tuple[str, ...]:
  """The members of a list of bare words: "a,b", "[a, b]" or nothing."""
  if text[:1] + text[-1:] in ("[]", "()"):
    text = text[1:-1]
  return tuple(word.strip() for word in text.split(",") if word.strip())


def _fit(value: Any, text: str, old: Any) -> Any:
  """`value` as what `old` is, or None where it is something else.

  Args:
    value: the text, read.
    text: as it was given.
    old: a number, a bool or a tuple; the members of a tuple say what its new
      members must be, and an empty one takes any.
  """
  if isinstance(old, tuple):
    if not isinstance(value, tuple) or (old and text.strip() == ""):
      return None
    if not old:
      return value
    if all(isinstance(member, str) for member in old):
      if all(isinstance(member, str) for member in value):
        return value
      # 7 is a fine name.
      bare = all(isinstance(member, int | float) for member in value)
      return _listed(text) if bare else None
    members = tuple(_fit_member(member, old) for member in value)
    return None if any(member is None for member in members) else members
  if isinstance(old, float) and type(value) is int:
    value = float(value)
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value if type(value) is type(old) else None


def _fit_member(value: Any, old: tuple) -> Any:
  """A member of a tuple as what one of the old members is, or None."""
  exact = [member for member in old if type(member) is type(value)]
  for member in (*exact, *old):
    if isinstance(member, str):
      fitted = value if isinstance(value, str) else None
    else:
      fitted = _fit(value, repr(value), member)
    if fitted is not None:
      return fitted
  return None


def _wanted(old: Any) -> str:
  """What a value of the type of `old` is called."""
  if not isinstance(old, tuple):
    return options.describe(type(old))
  kinds = sorted(
    {
      "a list" if isinstance(member, tuple) else options.describe(type(member))
      for member in old
    }
  )
  return f"a list, each entry {' or '.join(kinds)}," if kinds else "a list"
