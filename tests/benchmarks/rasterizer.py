"""Times the rasteriser: `python -m tests.benchmarks.rasterizer`."""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from faceedit_jax.morphable.rasterize import rasterize


def ellipsoids(shells: int, rows: int, columns: int):
  """Nested noisy ellipsoids, in units of the picture's side."""
  rng = np.random.default_rng(0)
  theta = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
  phi = np.linspace(0, np.pi, rows)[:, None]
  vertices, faces = [], []
  j, i = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
  a, d = j * columns + i, j * columns + (i + 1) % columns
  quad = np.stack([a, a + columns, d + columns, a, d + columns, d], -1)
  for shell in range(shells):
    radius = (0.30 + 0.03 * shell) * (1 + 0.01 * rng.normal(size=(rows, 1)))
    points = np.stack(
      [
        radius * np.sin(phi) * np.sin(theta),
        radius * 1.3 * np.cos(phi) + 0 * theta,
        -radius * np.sin(phi) * np.cos(theta),
      ],
      -1,
    )
    faces.append(quad.reshape(-1, 3) + shell * rows * columns)
    vertices.append(points.reshape(-1, 3) + [0.5, 0.5, 0])
  return np.concatenate(vertices), np.concatenate(faces)


def measure(faces_wanted: int, size: int, batch: int, **options) -> dict:
  """Seconds of compilation and milliseconds per picture."""
  rows = round((faces_wanted / 4) ** 0.5)
  vertices, faces = ellipsoids(2, rows, rows)
  scale = 1 + 0.02 * np.arange(batch)[:, None, None]
  xyz = jnp.asarray(vertices[None] * size / scale, jnp.float32)
  faces = jnp.asarray(faces, jnp.int32)
  run = lambda: jax.block_until_ready(  # noqa: E731
    rasterize(xyz, faces, size, size, **options)
  )
  start = time.perf_counter()
  result = run()
  compiled = time.perf_counter() - start
  times = []
  for _ in range(5):
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
  return {
    "faces": len(faces),
    "size": size,
    "batch": batch,
    "pairs": int(result.pairs.max()),
    "first_call_s": round(compiled, 2),
    "ms_per_picture": round(1e3 * min(times) / batch, 2),
    **options,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--faces", type=int, default=10_000)
  parser.add_argument("--size", type=int, default=256)
  parser.add_argument("--batch", type=int, default=16)
  parser.add_argument("--tile", type=int, default=8)
  parser.add_argument("--capacity", type=int, default=None)
  parser.add_argument("--batching", default="auto")
  args = parser.parse_args()
  print(jax.default_backend(), jax.devices())
  print(
    measure(
      args.faces,
      args.size,
      args.batch,
      tile=args.tile,
      capacity=args.capacity,
      batching=args.batching,
    )
  )


if __name__ == "__main__":
  main()
