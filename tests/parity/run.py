"""Prints the parity table of a folder of cases.

`python -m tests.parity.run [folder] [--only=ldm/vq_model] [--worst]`
"""

import argparse
import importlib
import os
import sys
from pathlib import Path

from tests.parity import harness

TOOLS = ("__init__", "harness", "options", "pack", "run", "twins")
HERE = Path(__file__).parent
SHARED = Path(
  os.environ.get("FACEEDIT_SHARED", str(HERE.parents[2] / "shared"))
)


def load_runners() -> None:
  """Imports every module that registers runners."""
  for path in sorted(HERE.glob("*.py")):
    if path.stem not in TOOLS and not path.stem.startswith("test_"):
      importlib.import_module(f"tests.parity.{path.stem}")


def cases(folder: str | None = None) -> list[tuple[Path, str]]:
  """(folder, stem) of every case, each once.

  Args:
    folder: of the cases; by default the copies beside this file and whatever
      else ../shared/fixtures has.
  """
  folders = [HERE / "fixtures", SHARED / "fixtures"]
  if folder is not None:
    folders = [Path(folder)]
    if not any(folders[0].glob("*.json")):
      raise FileNotFoundError(f"no cases (*.json) in {folder}")
  found: dict[str, Path] = {}
  for place in folders:
    for path in sorted(place.glob("*.json")):
      found.setdefault(path.stem, place)
  return [(place, stem) for stem, place in sorted(found.items())]


def run(place: Path, stem: str) -> tuple[list[tuple], str]:
  """Rows of a case, and what is wrong with it."""
  try:
    case = harness.load_case(place, stem)
    rows = harness.check(case, harness.find_runner(case.name))
  except (AssertionError, LookupError) as error:
    return [], f"{stem}: {error}"
  return rows, harness.failures(case, rows)


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("folder", nargs="?")
  parser.add_argument("--only", default="", help="beginning of case names")
  parser.add_argument(
    "--worst",
    action="store_true",
    help="one output per case, the nearest to its bound",
  )
  args = parser.parse_args()
  load_runners()
  wrong = []
  for place, stem in cases(args.folder):
    name = harness.read_name(place, stem)
    if not name.startswith(args.only):
      continue
    if reason := harness.why_not(name):
      print(f"{name:36} {reason}")
      continue
    rows, fault = run(place, stem)
    wrong += [fault] if fault else []
    if args.worst and rows:
      rows = [max(rows, key=lambda row: row[1] / (row[2] or 1e-30))]
    for output, difference, limit in rows:
      verdict = "ok" if difference <= limit else "FAIL"
      print(f"{name:36} {output:52} {difference:9.2e} {limit:9.2e} {verdict}")
  print("\n".join(wrong), file=sys.stderr)
  return int(bool(wrong))


if __name__ == "__main__":
  raise SystemExit(main())
