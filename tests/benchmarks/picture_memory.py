"""Peak memory of an edit that is pasted back into a large photo.

  python -m tests.benchmarks.picture_memory [MEGAPIXELS ...]

Reads a JPEG file, cuts a square as high as the photo, pastes it back and
writes the photo, as an edit does, but without any net and each size in a
process of its own; prints the peak above that of the imports, by megapixel.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

from data_pipelines import align, images

SIZES = (50, 108, 200, 250)  # megapixels, 4:3


def make(path, megapixels):
  """Writes a photo of smooth colours."""
  height = int((megapixels * 0.75e6) ** 0.5)
  width = int(megapixels * 1e6 / height)
  small = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
  Image.fromarray(small).resize((width, height)).save(path, quality=85)


def edit(path, output):
  """What an edit does with a photo, but for the nets."""
  photo = images.read_image(path)
  height, width = photo.shape[:2]
  points = align.CANONICAL5.astype(float) * height + [(width - height) / 2, 0]
  square = align.align(photo, points, 64)
  patch = 255 - square.image
  align.paste_back(photo, patch, square.matrix, in_place=True)
  images.write_image(output, photo, tagged=True)


def peak():
  """Most memory that this process has held, in megabytes; on Linux.

  `resource.getrusage` would begin with the peak of the process that starts it.
  """
  status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
  return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e6


def run(*arguments):
  """What this module prints in a process of its own."""
  line = [sys.executable, "-m", "tests.benchmarks.picture_memory", *arguments]
  done = subprocess.run(line, check=True, capture_output=True, text=True)
  assert not done.stderr, done.stderr
  return done.stdout


def measure(folder, megapixels):
  """Megabytes for each megapixel of a process that edits one photo."""
  path = folder / f"{megapixels}.jpg"
  # Not in this process, whose peak its children would begin with.
  run("--make", path, str(megapixels))
  used = float(run("--edit", path, folder / "out.jpg"))
  path.unlink()
  return used / megapixels


def main():
  if sys.argv[1:2] == ["--make"]:
    make(sys.argv[2], float(sys.argv[3]))
    return
  if sys.argv[1:2] == ["--edit"]:
    before = peak()
    edit(*map(pathlib.Path, sys.argv[2:]))
    print(peak() - before)
    return
  sizes = [float(word) for word in sys.argv[1:]] or SIZES
  with tempfile.TemporaryDirectory() as folder:
    for size in sizes:
      began = time.perf_counter()
      each = measure(pathlib.Path(folder), size)
      seconds = time.perf_counter() - began
      print(f"{size:g} megapixels: {each:.1f} MB for each, {seconds:.0f} s")


if __name__ == "__main__":
  main()
