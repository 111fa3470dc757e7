"""Our networks against recorded outputs of the official ones."""

from pathlib import Path

import numpy as np
import pytest

from tests.parity.harness import (
  RUNNERS,
  Case,
  compare,
  find_runner,
  load_case,
)
from tests.parity.run import FOLDER, load_runners

load_runners()


def stems() -> list[str]:
  """Cases of the default folder; those we run, when it is not there."""
  found = sorted(path.stem for path in FOLDER.glob("*.json"))
  found = [s for s in found if find_runner(s.replace("__", "/"))]
  return found or [name.replace("/", "__") for name in sorted(RUNNERS)]


@pytest.mark.shared
@pytest.mark.parametrize("stem", stems())
def test_fixture(shared: Path, stem: str):
  case = load_case(shared / "fixtures", stem)
  rows = compare(case, find_runner(case.name)(case))
  wrong = [row for row in rows if not row[1] <= row[2]]
  assert not wrong, f"(output, difference, bound): {wrong}"


def test_compare_sees_a_difference():
  info = {"case": "a", "config": {}, "float32_vs_float64_max_abs": {"y": 1e-6}}
  case = Case(info, {"out/y": np.ones(3, np.float32)})
  ((_, difference, limit),) = compare(case, {"y": np.full(3, 1.001)})
  assert difference > limit
  ((_, difference, limit),) = compare(case, {"y": np.full(3, 1.00001)})
  assert difference < limit
  with pytest.raises(AssertionError, match="no output"):
    compare(case, {})
