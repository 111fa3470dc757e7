"""The linear albedo basis of the procedural head, in the style of DECA's.

It is kept in `albedo_basis.npz` beside this file, because components are only
comparable between machines when they are not computed anew.
`python -m data_pipelines.synthetic_heads.albedo_model` rebuilds it.
"""

import functools
import pathlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("albedo_basis.npz")


def save_albedo_basis(
  mean: np.ndarray, basis: np.ndarray, path: pathlib.Path = FILE
) -> None:
  """Writes a basis in 8 bits per texel and direction.

  Args:
    mean: (t, t, 3) in linear colour.
    basis: (n, t, t, 3); a coefficient of 1 is one standard deviation.
    path: file to write.
  """
  peak = np.abs(basis).max((1, 2, 3))
  steps = np.round(basis / peak[:, None, None, None] * 127).astype(np.int8)
  np.savez_compressed(
    path,
    mean=mean.astype(np.float16),
    steps=steps,
    peak=peak.astype(np.float32),
  )


@functools.cache
def load_albedo_basis() -> tuple[np.ndarray, np.ndarray]:
  """Mean (128, 128, 3) and basis (50, 128, 128, 3) in linear colour.

  Raises:
    FileNotFoundError: if the file was not installed with the package.
  """
  if not FILE.exists():
    raise FileNotFoundError(
      f"{FILE} is missing; rebuild it with "
      "`python -m data_pipelines.synthetic_heads.albedo_model`"
    )
  with np.load(FILE) as f:
    basis = (
      f["steps"].astype(np.float32) * (f["peak"] / 127)[:, None, None, None]
    )
    return f["mean"].astype(np.float32), basis
