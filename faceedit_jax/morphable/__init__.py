"""3D face models: FLAME, ICT-FaceKit and the procedural head; rasteriser,
light and camera."""

from faceedit_jax.morphable.model import Morphable

__all__ = ["Morphable", "load"]


def load(kind: str = "procedural", path: str = "", **options) -> Morphable:
  """Loads a face model by name.

  Args:
    kind: "procedural", "flame" or "ict".
    path: FLAME's pickle or ICT-FaceKit's folder; unused for "procedural".
    **options: see `procedural_model`, `load_flame` and `load_ict`.

  Raises:
    ValueError: if the kind is unknown.
  """
  # Imported when asked for: building the template takes a second.
  if kind == "procedural":
    from faceedit_jax.morphable.procedural import procedural_model

    return procedural_model(**options)
  if kind == "flame":
    from faceedit_jax.morphable.flame import load_flame

    return load_flame(path, **options)
  if kind == "ict":
    from faceedit_jax.morphable.ict import load_ict

    return load_ict(path, **options)
  raise ValueError(
    f"morphable: kind {kind!r} is unknown, wanted procedural, flame or ict."
  )
