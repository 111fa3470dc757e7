"""The options of a recorded case, which know what was read of them."""

from collections.abc import Iterator, Mapping


class Options(Mapping):
  """A mapping of a json, those inside it included, that notes every read.

  Asking whether an option is there (`in`) is not a read.
  """

  def __init__(self, values: Mapping):
    self._values = {name: _noting(value) for name, value in values.items()}
    self._read = set()

  def __getitem__(self, name: str):
    self._read.add(name)
    return self._values[name]

  def __contains__(self, name: object) -> bool:
    return name in self._values

  def __iter__(self) -> Iterator[str]:
    return iter(self._values)

  def __len__(self) -> int:
    return len(self._values)

  def unread(self, prefix: str = "") -> dict:
    """Options that no one read, by dotted name."""
    found = {}
    for name, value in self._values.items():
      if name not in self._read:
        found[prefix + name] = _plain(value)
        continue
      for at, inner in _inner(value):
        found |= inner.unread(f"{prefix}{name}{at}.")
    return found

  def one_of(self, name: str, choices: Mapping):
    """What stands for the value of an option; those we lack are an error.

    Args:
      name: the option.
      choices: ours by the official value.
    """
    value = self[name]
    if value not in choices:
      raise NotImplementedError(
        f"option {name!r} is {value!r}; our net knows {list(choices)}"
      )
    return choices[value]

  def spelled(self, *names: str, default):
    """An option under one of several names, or the official default.

    Args:
      names: the official argument, and shorter forms of it.
      default: of the official code, where none of them is there.
    """
    there = [name for name in names if name in self]
    if len(there) > 1:
      raise NotImplementedError(f"options {there} are one; wanted one of them")
    return self[there[0]] if there else default

  def expect(self, **values) -> None:
    """Reads options that the arrays tell too, which must agree with them.

    Args:
      values: what the arrays say by option; an option that the json lacks is
        passed over.
    """
    for name, value in values.items():
      if name not in self:
        continue
      value = list(value) if isinstance(value, tuple) else value
      if (got := self[name]) != value:
        raise NotImplementedError(
          f"option {name!r} is {got!r}, but the arrays say {value!r}"
        )

  def without_effect(self, *names: str) -> None:
    """Reads options that the official code ignores in this case.

    Those of the other kind where one set of options serves two, and the seed
    that the recording drew its arrays from.
    """
    for name in names:
      self.get(name)


def _noting(value):
  if isinstance(value, Mapping):
    return Options(value)
  if isinstance(value, list):
    return [_noting(item) for item in value]
  return value


def _plain(value):
  if isinstance(value, Options):
    return {name: _plain(inner) for name, inner in value._values.items()}
  if isinstance(value, list):
    return [_plain(item) for item in value]
  return value


def _inner(value, at: str = "") -> Iterator[tuple[str, Options]]:
  """(place, options) of the mappings inside a value."""
  if isinstance(value, Options):
    yield at, value
  elif isinstance(value, list):
    for i, item in enumerate(value):
      yield from _inner(item, f"{at}[{i}]")
