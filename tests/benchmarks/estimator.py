"""How well a trained estimator reads the codes of pictures with known codes.

python -m tests.benchmarks.estimator --workdir=runs/difffae --data_dir=data \
  --folder=synthetic_heads_64
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import sources
from faceedit_jax import load_trained
from faceedit_jax.core import config as config_lib
from faceedit_jax.faces import face_reader
from faceedit_jax.losses import parameters

BATCH = 32


def correlations(read: np.ndarray, true: np.ndarray) -> np.ndarray:
  """Correlation (n,) of each coefficient over pictures; nan if constant."""
  read, true = read - read.mean(0), true - true.mean(0)
  spread = np.sqrt((read**2).sum(0) * (true**2).sum(0))
  with np.errstate(invalid="ignore", divide="ignore"):
    return np.where(spread > 1e-9, (read * true).sum(0) / spread, np.nan)


def main() -> None:
  """Prints one line per code."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--data_dir", default="data")
  parser.add_argument("--folder", default="synthetic_heads_64")
  parser.add_argument("--config", help="what the run has recorded")
  parser.add_argument("--stage", default="estimator")
  parser.add_argument("--split", default="pairs", help="pairs: unseen people")
  parser.add_argument(
    "--picture",
    default="source",
    choices=("source", "query", "truth"),
    help="which picture of a pair",
  )
  parser.add_argument("--pictures", type=int, default=256)
  args = parser.parse_args()
  config = config_lib.load(args.config) if args.config else None
  stage = load_trained.load(args.workdir, config, args.stage)
  net = stage.variables["estimator"]

  @jax.jit
  def read(net, image):
    return face_reader.read_codes(stage.recipe.net, net, image)

  source = sources.SyntheticHeads(args.folder)
  data = source.open(args.data_dir, args.split)
  count = min(args.pictures, len(data))
  got, true = [], []
  for first in range(0, count, BATCH):
    rows = [data[i] for i in range(first, min(first + BATCH, count))]
    if args.split == "pairs":
      head = f"{args.picture}_"
      rows = [
        {k.removeprefix(head): v for k, v in r.items() if k.startswith(head)}
        for r in rows
      ]
    image = np.stack([r["image"] for r in rows]).astype(np.float32)
    got.append(jax.device_get(read(net, jnp.asarray(image / 127.5 - 1))))
    true.append(rows)
  true = [row for rows in true for row in rows]
  angle = parameters.rotation_distance(
    np.concatenate([g["pose"][:, :3] for g in got]),
    np.stack([row["pose"][:3] for row in true]),
  )
  print(f"head rotation: mean error {np.degrees(angle).mean():.1f} degrees")
  print(f"{count} pictures, split {args.split!r}, stage {args.stage!r}")
  for name in (*stage.recipe.shapes, "landmarks5"):
    a = np.concatenate([g[name].reshape(len(g[name]), -1) for g in got])
    b = np.stack([np.asarray(row[name]).ravel() for row in true])
    r = correlations(a, b)
    error = np.abs(a - b).mean() / max(np.abs(b - b.mean(0)).mean(), 1e-9)
    each = " ".join(f"{v:5.2f}" for v in r[:16])
    print(
      f"{name:11s} correlation {np.nanmean(r):.2f}, error {error:.2f} of the "
      f"mean's; first coefficients: {each}"
    )


if __name__ == "__main__":
  main()
