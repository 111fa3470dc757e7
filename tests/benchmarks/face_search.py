"""How often and how well an editor finds the faces of given portraits.

python -m tests.benchmarks.face_search --workdir=runs/difffae --folder=DIR \
  --landmarks=points.npz

`points.npz` holds one array (5, 2) of pixels per picture, by file name without
its ending.
"""

import argparse
import pathlib

import numpy as np
import tqdm

from data_pipelines import images
from faceedit_jax.core.errors import UserError
from faceedit_jax.editing import Editor


def main() -> None:
  """Prints how many were found, and the error in distances of the eyes."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--folder", required=True)
  parser.add_argument("--landmarks", required=True)
  args = parser.parse_args()
  folder = pathlib.Path(args.folder)
  finder = Editor.from_workdir(args.workdir)
  with np.load(args.landmarks) as table:
    files = [f for f in images.list_images(folder).files if f.stem in table]
    truth = {folder / f: np.asarray(table[f.stem], np.float64) for f in files}
  errors = []
  for file, points in tqdm.tqdm(truth.items(), unit="portrait"):
    try:
      found = finder.find_points(file)
    except UserError as error:
      print(f"{file.name}: {error}")
      continue
    eyes = np.linalg.norm(points[0] - points[1])
    errors.append(np.linalg.norm(found - points, axis=1).mean() / eyes)
  print(f"found {len(errors)} of {len(truth)} faces")
  if errors:
    median, most = np.median(errors), np.max(errors)
    print(
      f"mean error of five points in distances of the eyes: median {median:.3f}"
      f", largest {most:.3f}"
    )


if __name__ == "__main__":
  main()
