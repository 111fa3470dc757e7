"""Copies cases into tests/parity/fixtures, the arrays packed by LZMA.

`python -m tests.parity.pack SOURCE STEM...`
"""

import argparse
import shutil
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parent / "fixtures"


def pack(source: Path, stem: str, folder: Path = FOLDER) -> None:
  """Copies one case; equal input gives equal bytes."""
  shutil.copyfile(source / f"{stem}.json", folder / f"{stem}.json")
  with (
    zipfile.ZipFile(source / f"{stem}.npz") as old,
    zipfile.ZipFile(folder / f"{stem}.npz", "w", zipfile.ZIP_LZMA) as new,
  ):
    for name in old.namelist():
      # A fixed date, so that the file depends on the arrays alone.
      entry = zipfile.ZipInfo(name)
      new.writestr(entry, old.read(name), zipfile.ZIP_LZMA)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("source", type=Path)
  parser.add_argument("stems", nargs="+")
  args = parser.parse_args()
  for stem in args.stems:
    pack(args.source, stem)


if __name__ == "__main__":
  main()
