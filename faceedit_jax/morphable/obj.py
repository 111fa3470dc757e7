"""Reads the texture layout of a Wavefront mesh (DECA's head_template)."""

import pathlib

import numpy as np


def read_layout(
  path: str | pathlib.Path,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Texture coordinates and triangles of an .obj file.

  Args:
    path: a mesh of triangles whose corners are written `vertex/texture`.

  Returns:
    uv (Vt, 2), v up, uv_faces (F, 3) into it, and faces (F, 3).

  Raises:
    ValueError: one line: no such file, or another kind of mesh.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f"mesh {path} does not exist")
  uv, corners = [], []
  try:
    for line in path.read_text().splitlines():
      kind, *fields = line.split() or [""]
      if kind == "vt":
        uv.append([float(x) for x in fields[:2]])
      elif kind == "f":
        corners.append([[int(x) for x in f.split("/")[:2]] for f in fields])
    corners = np.asarray(corners, np.int64).reshape(-1, 3, 2)
    uv = np.asarray(uv, np.float64).reshape(-1, 2)
  except (ValueError, IndexError) as error:
    raise ValueError(
      f"mesh {path}: wanted triangles with corners written vertex/texture, as "
      "in DECA's head_template.obj"
    ) from error
  if not len(corners) or not 0 < corners[..., 1].max() <= len(uv):
    raise ValueError(
      f"mesh {path}: {len(corners)} triangles and {len(uv)} texture "
      "coordinates do not belong together"
    )
  return uv, corners[..., 1] - 1, corners[..., 0] - 1
