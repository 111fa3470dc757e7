"""What all sources have in common."""

from typing import Any, Protocol


class SourceError(ValueError):
  """A source that cannot be opened; the message says what to change."""


class Source(Protocol):
  """What the loader needs."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]: ...
