"""What a key map is, and how it turns a torch state into our variables.

A key map is a pure function from a torch state-dict key to a `Target`: the
collection, the path inside it and the layout of the array. None means that
the tensor has no place in our network (a counter, a buffer).
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Target(NamedTuple):
  """Where a torch tensor goes."""

  path: tuple[str, ...]  # below the collection
  layout: str = "same"  # a key of LAYOUTS
  collection: str = "params"


KeyMap = Callable[[str], Target | None]

# Torch -> ours. Convolutions OIHW -> HWIO, linear (out, in) -> (in, out);
# "pointwise" is a 1 x 1 (or length 1) convolution that we hold as linear.
LAYOUTS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
  "same": lambda x: x,
  "conv": lambda x: x.transpose(2, 3, 1, 0),
  # Torch turns the kernel round (IOHW); here it lies as it is applied.
  "conv_transpose": lambda x: x[:, :, ::-1, ::-1].transpose(2, 3, 0, 1),
  "linear": lambda x: x.T,
  "pointwise": lambda x: x.reshape(x.shape[:2]).T,
  # A 1 x 1 convolution with us, there perhaps a linear layer.
  "pointwise_conv": lambda x: x.reshape(x.shape[:2]).T[None, None],
  # Scalars or vectors per channel that torch stores with other axes.
  "flat": lambda x: x.reshape(-1),
}

# Ours -> torch, "pointwise" as linear.
BACK: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
  "same": lambda x: x,
  "conv": lambda x: x.transpose(3, 2, 0, 1),
  "linear": lambda x: x.T,
  "pointwise": lambda x: x.T,
  "pointwise_conv": lambda x: x.transpose(3, 2, 0, 1),
}

_LEAVES = {
  "bias": ("bias", "params"),
  "running_mean": ("mean", "batch_stats"),
  "running_var": ("var", "batch_stats"),
}


def target(path: str, leaf: str, kind: str) -> Target | None:
  """The target of one torch leaf below a module.

  Args:
    path: "/"-joined path of our module.
    leaf: last part of the torch key: weight, bias, running_mean, ...
    kind: what a weight is: "norm", or a layout of `LAYOUTS`.

  Returns:
    The target, or None for a counter.

  Raises:
    KeyError: the leaf is unknown.
  """
  parts = tuple(path.split("/"))
  if leaf == "num_batches_tracked":
    return None
  if leaf == "weight":
    if kind == "norm":
      return Target((*parts, "scale"))
    return Target((*parts, "kernel"), kind)
  if leaf not in _LEAVES:
    raise KeyError(f"key map: unknown leaf {leaf!r} below {path!r}")
  name, collection = _LEAVES[leaf]
  return Target((*parts, name), "same", collection)


def from_rules(rules: Sequence[tuple[str, str, str]]) -> KeyMap:
  """A key map from ordered rules.

  Args:
    rules: (pattern of the torch module path, our path, kind of weight). The
      pattern must match the whole module path; our path may hold its groups,
      as in `re.sub`.

  Returns:
    The key map; it raises KeyError for a key that no rule matches.
  """
  compiled = [(re.compile(pattern), *rest) for pattern, *rest in rules]

  def keymap(key: str) -> Target | None:
    module, _, leaf = key.rpartition(".")
    for pattern, path, kind in compiled:
      found = pattern.fullmatch(module)
      if found:
        return target(found.expand(path), leaf, kind)
    raise KeyError(f"key map: no rule for {key!r}")

  return keymap


def dots(
  rules: Sequence[tuple[str, str, str]],
) -> Callable[[str], str | None]:
  """Of a weight's or bias's name without its dots: the name.

  Args:
    rules: as for `from_rules`.

  Returns:
    The function; it gives None for a name that no rule matches.
  """
  compiled = []
  for pattern, *_ in rules:
    # An empty group stands where a dot was, and says where it belongs.
    parts = [*pattern.split(r"\."), "(?:weight|bias)"]
    groups = [f"{part}(?P<dot{i}>)" for i, part in enumerate(parts[:-1])]
    compiled.append(re.compile("".join(groups) + parts[-1]))

  def dotted(name: str) -> str | None:
    for pattern in compiled:
      if found := pattern.fullmatch(name):
        cuts = [0, *sorted(found.start(g) for g in pattern.groupindex), None]
        return ".".join(name[a:b] for a, b in itertools.pairwise(cuts))
    return None

  return dotted


def convert(state: Mapping[str, np.ndarray], keymap: KeyMap) -> dict:
  """Builds variables from a torch state.

  Args:
    state: arrays by torch key.
    keymap: of the network.

  Returns:
    {collection: nested dict of arrays}.

  Raises:
    KeyError: a key without a rule.
    ValueError: two keys with one target.
  """
  variables: dict = {}
  for key, value in state.items():
    goal = keymap(key)
    if goal is None:
      continue
    node = variables.setdefault(goal.collection, {})
    for part in goal.path[:-1]:
      node = node.setdefault(part, {})
    if goal.path[-1] in node:
      raise ValueError(f"key map: {key!r} and another key share {goal.path}")
    node[goal.path[-1]] = LAYOUTS[goal.layout](np.asarray(value))
  return variables
