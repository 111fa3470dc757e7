"""Finds one net in a weight file: where it lies, raw or averaged.

Trainers wrap a state in dicts and prefixes ("state_dict", "module."), in any
order, and keep an average of the weights beside the raw ones. Both show in the
path of a key above the net's own names; which names are the net's own, its key
map says.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

State = dict[str, np.ndarray]
# Of a key: the path in our net, "" if it is known and has no place there, None
# if it is unknown.
Known = Callable[[str], str | None]

# What trainers, wrappers of torch and people put around a state.
_WRAPPERS = frozenset(
  "module _orig_mod _forward_module _fsdp_wrapped_module model net nets network"
  " state_dict model_state_dict model_state current_model_state state params"
  " parameters weights model_weights checkpoint callbacks Callback"
  " online_model".split()
)
# Words in the names of averages: "params_ema", "ema_model", "EMACallback".
_AVERAGE = re.compile(r"(?:^|_)(?:ema|EMA|swa|averaged|shadow)(?=_|$)|EMA")
_LITEMA = "model_ema"  # of latent diffusion: names without their dots
_LISTED = "shadow_params"  # of torch_ema and diffusers: a list without names
_COUNTERS = frozenset(
  "decay num_updates n_averaged initted step optimization_step".split()
)
# What a file may hold: a short one can name the same dict in many places.
_ENTRIES, _LETTERS = 200_000, 1 << 24
_LEVELS = 12  # segments above a net's own names
WEIGHTS = ("raw", "ema")


@dataclasses.dataclass
class Part:
  """One net of a file.

  Attributes:
    state: arrays by the names of the net.
    total: how many arrays the file holds.
    note: on averages: which were taken, and what else there is; "" where the
      file has none.
  """

  state: State
  total: int
  note: str = ""


@dataclasses.dataclass(frozen=True)
class _Entry:
  """An array, the dict that it lies in, and its whole path."""

  parent: tuple[str, ...]
  path: str
  value: np.ndarray


@dataclasses.dataclass
class _Place:
  """A prefix below which names of the net lie."""

  prefix: str
  averaged: bool
  inside: tuple[str, ...]  # the prefix without wrappers and averages
  found: dict[str, str] = dataclasses.field(default_factory=dict)  # name: ours
  parents: set[tuple[str, ...]] = dataclasses.field(default_factory=set)

  def worth(self) -> tuple[int, int]:
    """To be the largest: what it fills of our net, then how short it is."""
    return len(set(self.found.values())), -len(self.prefix)


def find(
  raw: Mapping[str, Any],
  places: Sequence[str],
  known: Known,
  size: int,
  weights: str | None = None,
  dotted: Callable[[str], str | None] = lambda name: None,
) -> Part:
  """Finds a net.

  Args:
    raw: from `reader.read`.
    places: where its authors put it, the first that is there: a dict
      ("E_flame"), a prefix of keys ("first_stage_model."), "" for the top;
      wrappers may lie before, between and behind. A net that lies elsewhere,
      but at one place only, is found too.
    known: the net's own names.
    size: how many arrays our net has.
    weights: "raw", "ema", or None for the average where there is one.
    dotted: a name of the net without its dots -> with them, or None.

  Returns:
    The net; averages are completed by the raw part. A file without the net
    gives the arrays of its state.

  Raises:
    ValueError: one line: the file has no such weights.
  """
  entries = list(_with_dots(list(_entries(raw)), dotted))
  candidates = _candidates(entries, known, _lightning_average(raw))
  chosen = _choose(candidates, places, size)
  plain, ema = _best(chosen, averaged=False), _best(chosen, averaged=True)
  if plain and not ema:
    entries, ema = _listed(entries, plain)
  if weights == "ema" and not ema or weights == "raw" and ema and not plain:
    raise ValueError(_lacks(weights, plain or ema))
  if not plain and not ema:
    return Part(_top(raw), len(entries))
  raw_state = _below(entries, plain, known) if plain else {}
  if not ema or weights == "raw":
    note = f"raw weights ({_where(ema)} has averages)" if ema else ""
    return Part(raw_state, len(entries), note)
  averages = _below(entries, ema, known)
  note = f"averaged weights of {_where(ema)}"
  if not plain:
    note += ", which are the only ones"
  elif lacking := [k for k in raw_state if k not in averages and known(k)]:
    shown = ", ".join(lacking[:2]) + ", ..." * (len(lacking) > 2)
    note += f", with {len(lacking)} raw ones that it lacks ({shown})"
  if plain:
    note += " (--weights=raw takes the raw ones)"
  return Part(raw_state | averages, len(entries), note)


def _listed(
  entries: list[_Entry], plain: _Place
) -> tuple[list[_Entry], _Place | None]:
  """Names an average that is a list, in the order of the raw parameters."""
  listed: dict[str, list[_Entry]] = {}
  for entry in entries:
    head, _, last = entry.path.rpartition(".")
    if head.endswith(_LISTED) and last.isdigit():
      listed.setdefault(head, []).append(entry)
  start = f"{plain.prefix}." if plain.prefix else ""
  wanted = [
    entry
    for entry in entries
    if plain.found.get(entry.path.removeprefix(start), "").startswith("params/")
    and entry.path.startswith(start)
  ]
  for head, values in listed.items():
    shapes = [entry.value.shape for entry in values]
    if shapes != [entry.value.shape for entry in wanted]:
      continue
    place = _Place(head, True, plain.inside)
    named = []
    for entry, raw in zip(values, wanted, strict=True):
      name = raw.path.removeprefix(start)
      place.found[name] = plain.found[name]
      named.append(dataclasses.replace(entry, path=f"{head}.{name}"))
    gone = {entry.path for entry in values}
    return [*(e for e in entries if e.path not in gone), *named], place
  return entries, None


def _best(places: Sequence[_Place], averaged: bool) -> _Place | None:
  of_sort = [place for place in places if place.averaged == averaged]
  return max(of_sort, key=_Place.worth, default=None)


def _lacks(weights: str, other: _Place | None) -> str:
  words = {"raw": "raw weights", "ema": "averages"}
  line = f"--weights={weights}: the file holds no {words[weights]} of this net"
  if not other:
    return f"{line}, nor anything else of it"
  has = words["ema" if other.averaged else "raw"]
  return f"{line}, only {has} ({len(other.found)} arrays at {_where(other)})"


def _where(place: _Place) -> str:
  return repr(place.prefix)[:200] if place.prefix else "its top"


def _entries(raw: Mapping[str, Any]) -> Iterator[_Entry]:
  """All arrays, wherever they lie."""
  entries, letters = _ENTRIES, _LETTERS

  def walk(part: Mapping[str, Any], parent: tuple[str, ...]):
    nonlocal entries, letters
    for key, value in part.items():
      entries, letters = entries - 1, letters - len(key)
      if isinstance(value, Mapping):
        yield from walk(value, (*parent, key))
      else:
        letters -= sum(map(len, parent))
        if min(entries, letters) < 0:
          raise ValueError(
            f"the file holds more than {_ENTRIES:,} entries, or names of more "
            f"than {_LETTERS:,} letters"
          )
        yield _Entry(parent, ".".join((*parent, key)), value)

  return walk(raw, ())


def _with_dots(
  entries: Sequence[_Entry], dotted: Callable[[str], str | None]
) -> Iterator[_Entry]:
  """Gives back the dots that LitEma takes from the names of its averages."""
  tables: dict[str, dict[str, str]] = {}
  for entry in entries:
    head, _, name = entry.path.rpartition(".")
    outer, _, last = head.rpartition(".")
    if last != _LITEMA or name in _COUNTERS:
      yield entry
      continue
    if outer not in tables:
      tables[outer] = _dotless(entries, outer)
    whole = tables[outer].get(name) or dotted(name) or name
    yield dataclasses.replace(entry, path=f"{head}.{whole}")


def _dotless(entries: Sequence[_Entry], outer: str) -> dict[str, str]:
  """{name without dots: name} of the raw weights below a prefix."""
  start, found = f"{outer}." if outer else "", {}
  for entry in entries:
    name = entry.path.removeprefix(start)
    if entry.path.startswith(start) and not name.startswith(f"{_LITEMA}."):
      for inner in (name, name.removeprefix("model.")):
        found[inner.replace(".", "")] = inner
  return found


def _lightning_average(raw: Mapping[str, Any]) -> frozenset[str]:
  """Segments that are an average though they do not say so.

  Lightning's WeightAveraging puts the average where the raw weights would be.
  """
  if "current_model_state" in raw and "averaging_state" in raw:
    return frozenset(["state_dict"])
  return frozenset()


def _classified(
  prefix: str, averages: frozenset[str]
) -> tuple[bool, tuple[str, ...]]:
  """Whether a prefix is of averages, and what is left without wrappers."""
  averaged, inside = False, []
  for segment in filter(None, prefix.split(".")):
    if segment in averages or _AVERAGE.search(segment):
      averaged = True
      segment = _AVERAGE.sub("", segment).strip("_")
    elif segment == "online_model":  # raw, inside of a module that averages
      averaged = False
    number = averaged and segment.isdigit()  # "ema_0.9999"
    if segment and segment not in _WRAPPERS and not number:
      inside.append(segment)
  return averaged, tuple(inside)


def _candidates(
  entries: Sequence[_Entry], known: Known, averages: frozenset[str]
) -> list[_Place]:
  """All prefixes below which there are names of the net."""
  seen: dict[str, str | None] = {}
  found: dict[str, _Place] = {}
  for entry in entries:
    segments = entry.path.split(".")
    for i in range(min(len(segments), _LEVELS)):
      name = ".".join(segments[i:])
      if name not in seen:
        seen[name] = known(name)
      if seen[name]:
        prefix = ".".join(segments[:i])
        if prefix not in found:
          found[prefix] = _Place(prefix, *_classified(prefix, averages))
        found[prefix].found[name] = seen[name]
        found[prefix].parents.add(entry.parent)
  return list(found.values())


def _choose(
  candidates: Sequence[_Place], places: Sequence[str], size: int
) -> list[_Place]:
  """The candidates at the first place that has any, or at the only other."""
  groups: dict[tuple[str, ...], list[_Place]] = {}
  for place in candidates:
    groups.setdefault(place.inside, []).append(place)
  usual = [_classified(place, frozenset())[1] for place in places]
  most = {
    inside: max(place.worth()[0] for place in group)
    for inside, group in groups.items()
  }
  chosen = next((inside for inside in usual if inside in groups), None)
  others = [i for i in groups if i not in usual and 2 * most[i] >= size]
  if len(others) == 1 and most[others[0]] > 2 * most.get(chosen, 0):
    chosen = others[0]
  return groups.get(chosen, [])


def _below(entries: Sequence[_Entry], place: _Place, known: Known) -> State:
  """The arrays of a place: the net's names, and what lies among them."""
  start, state = f"{place.prefix}." if place.prefix else "", {}
  for entry in entries:
    if not entry.path.startswith(start):
      continue
    name = entry.path[len(start) :]
    if name in place.found or (
      entry.parent in place.parents and not _of_average(name, entry, place)
    ):
      state.setdefault(name, entry.value)
  return state


def _of_average(name: str, entry: _Entry, place: _Place) -> bool:
  """Whether an unknown name is an average's, or one of its counters."""
  first = name.partition(".")[0]
  counter = place.averaged and first in _COUNTERS and entry.value.size < 2
  return counter or bool(_AVERAGE.search(first)) or first == "online_model"


def _top(raw: Mapping[str, Any]) -> State:
  """The state of a file that does not hold the net, for the report."""
  inner = raw
  while not any(isinstance(v, np.ndarray) for v in inner.values()):
    named = [k for k in inner if k in _WRAPPERS]
    if not named or not isinstance(inner[named[0]], Mapping):
      break
    inner = inner[named[0]]
  state = {k: v for k, v in inner.items() if isinstance(v, np.ndarray)}
  return state or {e.path: e.value for e in _entries(raw)}
