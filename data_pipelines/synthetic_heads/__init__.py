"""Synthetic heads: a procedural face world with exact factors.

`sample_identity` and `sample_frame` draw the factors, `render` turns them into
a picture with labels and codes, `replace` and `counterfactual` swap single
factors, `attribute_counterfactual` gives and takes single attributes. Names
are imported when first used: drawing factors needs no JAX.
"""

import importlib
from typing import Any

_HOME = {
  "ATTRIBUTE_NAMES": "labels",
  "CLASS_NAMES": "labels",
  "EDITED_ATTRIBUTES": "attribute_edits",
  "Frame": "factors",
  "Identity": "factors",
  "VERSION": "factors",
  "attribute_counterfactual": "attribute_edits",
  "attributes": "labels",
  "can_edit": "attribute_edits",
  "counterfactual": "edits",
  "has_forms": "attribute_edits",
  "render_batch": "render",
  "render_frames": "render",
  "replace": "factors",
  "sample_frame": "frames",
  "sample_identity": "identity",
  "world_model": "albedo_model",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
  if name not in _HOME:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
