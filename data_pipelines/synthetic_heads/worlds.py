"""The worlds that sets are drawn from, by the name of their module."""

import importlib
from typing import Any

WORLD = "data_pipelines.synthetic_heads"


def load_world(name: str = WORLD) -> Any:
  """The world that is drawn, as one object.

  Args:
    name: the procedural heads, or any importable module with the same names.

  Returns:
    An object with VERSION, `sample_identity(seed, index, balance)`,
    `sample_frame(seed, identity, frame, balance)`, `counterfactual(identity,
    frame, pose_from=, ...)` -> (identity, frame),
    `render_frames(identity, frames, size)` -> list of examples, with 68 points
    where a set asks for `landmarks68=True` as well;
    ATTRIBUTE_NAMES, `attributes(identity, frame)` -> {name: bool}; and, for
    the split `attributes`, EDITED_ATTRIBUTES, `can_edit(identity, name)`,
    `has_forms(name, value)` and `attribute_counterfactual(identity, frame,
    name, value, draw)` -> (identity, frame).
  """
  return importlib.import_module(name)
