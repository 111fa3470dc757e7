"""Peak memory of an edit that is pasted back into a large photo.

  python -m tests.benchmarks.picture_memory [MEGAPIXELS ...]

Reads a JPEG file, cuts a square as high as the photo, pastes it back and
writes the photo, without any net and each size in a process of its own; prints
the peak above that of a photo of one megapixel, by megapixel.
"""

import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

SIZES = (50, 108, 200, 250)  # megapixels, 4:3


def make(path, megapixels):
  """Writes a photo of smooth colours."""
  Image.MAX_IMAGE_PIXELS = None
  height = int((megapixels * 0.75e6) ** 0.5)
  width = int(megapixels * 1e6 / height)
  small = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
  Image.fromarray(small).resize((width, height)).save(path, quality=85)
  return width, height


def edit(path, output):
  """What an edit does with a photo, but for the nets."""
  from data_pipelines import align, images
  from faceedit_jax.editing import alignment

  photo = images.read_image(path)
  height, width = photo.shape[:2]
  points = align.CANONICAL5.astype(float) * height + [(width - height) / 2, 0]
  square = alignment.FaceAligner("synthetic_heads", 64).cut(photo, 64, points)
  pasted = alignment.paste_back(photo, square, 255 - square.image)
  images.write_image(output, pasted, tagged=True)


def measure(folder, megapixels):
  """Peak megabytes and seconds of a process that edits one photo."""
  path = folder / f"{megapixels}.jpg"
  make(path, megapixels)
  began = time.perf_counter()
  done = subprocess.run(
    [sys.executable, "-m", __spec__.name, "--edit", path, folder / "out.jpg"],
    check=True,
    capture_output=True,
    text=True,
  )
  assert not done.stderr, done.stderr
  path.unlink()
  return float(done.stdout), time.perf_counter() - began


def main():
  if sys.argv[1:2] == ["--edit"]:
    edit(*map(pathlib.Path, sys.argv[2:]))
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(kilobytes * 1024 / 1e6)
    return
  sizes = [float(word) for word in sys.argv[1:]] or SIZES
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    least, _ = measure(folder, 1)
    print(f"1 megapixel: {least:.0f} MB")
    for size in sizes:
      peak, seconds = measure(folder, size)
      print(
        f"{size:g} megapixels: {peak:.0f} MB, "
        f"{(peak - least) / (size - 1):.1f} MB for each more, {seconds:.0f} s"
      )


if __name__ == "__main__":
  main()
