"""Prints the parity table of a folder of cases.

`python -m tests.parity.run [folder] [--only=ldm/vq_model]`
"""

import argparse
import importlib
from pathlib import Path

from tests.parity.harness import compare, find_runner, load_case

MODULES = ("ldm", "slots", "faces", "perception")
FOLDER = Path(__file__).parents[3] / "shared" / "fixtures"


def load_runners() -> None:
  """Imports every module that registers runners."""
  here = Path(__file__).parent
  for path in sorted(here.glob("*.py")):
    if path.stem in MODULES:
      importlib.import_module(f"tests.parity.{path.stem}")


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
  parser.add_argument("--only", default="", help="beginning of case names")
  args = parser.parse_args()
  load_runners()
  failures = 0
  for path in sorted(args.folder.glob("*.json")):
    name = path.stem.replace("__", "/")
    if not name.startswith(args.only) or find_runner(name) is None:
      continue
    case = load_case(args.folder, path.stem)
    for output, difference, limit in compare(case, find_runner(name)(case)):
      verdict = "ok" if difference <= limit else "FAIL"
      failures += verdict == "FAIL"
      print(f"{name:36} {output:52} {difference:9.2e} {limit:9.2e} {verdict}")
  return int(failures > 0)


if __name__ == "__main__":
  raise SystemExit(main())
