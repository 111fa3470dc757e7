"""All sorts of published weight files, gathered from the key-map files."""

from collections.abc import Mapping

from faceedit_jax.weights import faces, l2m, ldm, perception
from faceedit_jax.weights.format import CheckpointFormat


def _gather(*groups: Mapping[str, CheckpointFormat]):
  """{name: format} of all groups; no two may share a name."""
  found: dict[str, CheckpointFormat] = {}
  for group in groups:
    if twice := sorted(found.keys() & group.keys()):
      raise ValueError(f"two checkpoint formats are called {twice}")
    found |= group
  return found


FORMATS: Mapping[str, CheckpointFormat] = _gather(
  ldm.FORMATS, faces.FORMATS, perception.FORMATS, l2m.FORMATS
)
