"""Our networks against recorded outputs of the official ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.parity import harness, run
from tests.parity.harness import Case, compare
from tests.parity.options import Options
from tests.parity.run import SHARED, load_runners

load_runners()
COPIES = Path(__file__).parent / "fixtures"


def pytest_generate_tests(metafunc):
  if "case_file" in metafunc.fixturenames:
    found = run.cases(metafunc.config.getoption("fixtures_dir"))
    marks = {SHARED / "fixtures": pytest.mark.shared}
    metafunc.parametrize(
      "case_file",
      [
        pytest.param(file, id=file[1], marks=marks.get(file[0], ()))
        for file in found
      ],
    )


def test_case(case_file: tuple[Path, str]):
  if reason := harness.why_not(harness.read_name(*case_file)):
    pytest.skip(reason)
  _, fault = run.run(*case_file)
  assert not fault, fault


def test_copies_stay_small():
  files = [path for path in COPIES.iterdir() if path.suffix != ".md"]
  assert sum(path.stat().st_size for path in files) <= 10_000_000
  stems = {path.stem for path in files}
  assert {path.name for path in files} == {
    f"{stem}.{end}" for stem in stems for end in ("json", "npz")
  }


@pytest.mark.shared
def test_copies_are_equal(shared: Path):
  for path in sorted(COPIES.glob("*.json")):
    original = shared / "fixtures" / path.name
    assert path.read_bytes() == original.read_bytes(), path.name
    ours = harness.load_case(COPIES, path.stem).arrays
    theirs = harness.load_case(shared / "fixtures", path.stem).arrays
    assert set(ours) == set(theirs), path.name
    for name, value in theirs.items():
      np.testing.assert_array_equal(ours[name], value, err_msg=name)
      assert ours[name].dtype == value.dtype


def _case(options=(), **outputs) -> Case:
  info = {"case": "a", "config": dict(options)}
  info["float32_vs_float64_max_abs"] = {"y": 1e-4}
  return Case(info, {f"out/{k}": np.asarray(v) for k, v in outputs.items()})


def _fault(case: Case, **ours) -> str:
  return harness.failures(case, compare(case, ours))


def test_compare_sees_a_difference():
  case = _case(y=np.ones(3, np.float32), z=np.full(3, 20.0))
  good = {"y": np.full(3, 1.0009), "z": np.full(3, 20.0019)}
  assert not _fault(case, **good)
  assert "y 1.1" in _fault(case, **good | {"y": np.full(3, 1.0011)})
  assert "z 2.1" in _fault(case, **good | {"z": np.full(3, 20.0021)})
  assert "y nan" in _fault(case, **good | {"y": np.full(3, np.nan)})
  # What a runner did not look at may be why.
  case = _case({"width": 3}, y=np.ones(3))
  assert "{'width': 3}" in _fault(case, y=np.zeros(3))


def test_integers_must_be_equal():
  case = _case(n=np.arange(4))
  assert not _fault(case, n=np.arange(4))
  assert "n 1.00e+00 > 0" in _fault(case, n=np.array([0, 1, 2, 4]))


def test_compare_wants_every_output():
  case = _case(y=np.ones(3, np.float32), n=np.arange(2))
  with pytest.raises(AssertionError, match=r"not compared \['n'\]"):
    compare(case, {"y": np.ones(3)})
  with pytest.raises(AssertionError, match=r"not recorded \['m'\]"):
    compare(case, {"y": np.ones(3), "n": np.arange(2), "m": np.ones(1)})
  with pytest.raises(AssertionError, match=r"y: got \(1,\), wanted \(3,\)"):
    compare(case, {"y": np.ones(1), "n": np.arange(2)})


def test_marked_ties_do_not_count():
  ids = np.arange(9).reshape(1, 3, 3)
  robust = ids != 4
  names = ("a/ids", "a/rgb", "a/points", "b/ids")
  values = (ids, np.stack([ids, ids], 1) / 1, np.zeros((1, 3)), ids)
  given = dict(zip(names, values, strict=True))
  case = _case(**given, **{"a/robust": robust})
  assert not _fault(case, **given)
  tie = 9 * ~robust
  moved = {"a/ids": ids + tie, "a/rgb": given["a/rgb"] + tie[:, None]}
  assert not _fault(case, **given | moved)
  for wrong in (
    {"a/ids": ids[:, ::-1]},
    {"a/rgb": given["a/rgb"][:, :, ::-1]},
    {"a/points": np.ones((1, 3))},
    {"b/ids": ids + tie},
  ):
    assert next(iter(wrong)) in _fault(case, **given | wrong)


def _twin(folder: Path, stem: str, change, extra=None) -> str:
  """What is wrong with a copy of a case whose json is changed.

  Args:
    folder: to write it to.
    stem: of the copied case.
    change: changes the parsed json in place.
    extra: further arrays.
  """
  info = json.loads((COPIES / f"{stem}.json").read_text())
  change(info)
  (folder / f"{stem}.json").write_text(json.dumps(info))
  if extra is None:
    shutil.copyfile(COPIES / f"{stem}.npz", folder / f"{stem}.npz")
  else:
    arrays = harness.load_case(COPIES, stem).arrays
    np.savez(folder / f"{stem}.npz", **arrays, **extra)
  return run.run(folder, stem)[1]


def test_an_option_that_nobody_reads_fails(tmp_path: Path):
  def same(info):
    pass

  def unknown(info):
    info["config"]["gelu"] = "tanh"

  def nested(info):
    info["config"]["head"] = {"norm": "ln"}

  def outside(info):
    info["options"] = {"norm": "ln"}

  # The numbers agree in each of them.
  assert not _twin(tmp_path, "metrics__fid", same)
  unread = "metrics/fid: options that the runner does not read: {%s}"
  for change, what in (
    (unknown, "'gelu': 'tanh'"),
    (nested, "'head': {'norm': 'ln'}"),
    (outside, "'options': {'norm': 'ln'}"),
  ):
    assert _twin(tmp_path, "metrics__fid", change) == unread % what


def test_an_option_that_the_arrays_contradict_fails(tmp_path: Path):
  def wider(info):
    info["config"]["D"] = 17

  fault = _twin(tmp_path, "metrics__fid", wider)
  assert "option 'D' is 17, but the arrays say 16" in fault


def test_an_output_that_nobody_compares_fails(tmp_path: Path):
  def without_statistics(info):
    del info["out_stats"]

  extra = {"out/kid": np.zeros(3)}
  fault = _twin(tmp_path, "metrics__fid", without_statistics, extra)
  assert "outputs not compared ['kid']" in fault
  fault = _twin(tmp_path, "metrics__fid", lambda info: None, extra)
  assert "out_stats of the json does not describe the arrays" in fault


def test_a_json_of_other_arrays_fails(tmp_path: Path):
  for key, value in (
    ("n_state_tensors", 1),
    ("state_groups", ["encoder"]),
    ("layout", "NHWC"),
    ("float32_vs_float64_max_abs", {"kid": 1.0}),
  ):
    fault = _twin(
      tmp_path, "metrics__fid", lambda i, k=key, v=value: i.update({k: v})
    )
    assert f"{key} of the json does not describe" in fault


def test_options_note_what_is_read():
  options = Options({"norm": "ln", "sizes": {"a": 1, "b": 2}, "in": [{"k": 3}]})
  assert "norm" in options  # which is no read
  assert options.unread() == {
    "norm": "ln",
    "sizes": {"a": 1, "b": 2},
    "in": [{"k": 3}],
  }
  with pytest.raises(NotImplementedError, match="'norm' is 'ln'; our net"):
    options.one_of("norm", {"": "none", "bn": "batch"})
  assert options["sizes"]["a"] == 1
  assert len(options["in"]) == 1
  assert options.unread() == {"sizes.b": 2, "in[0].k": 3}
  assert dict(options["sizes"]) == {"a": 1, "b": 2}
  assert options["in"][0]["k"] == 3
  assert options.unread() == {}


def test_options_have_several_names_and_defaults():
  options = Options(
    {"param": "x0", "batch": 2, "res": [4, 6], "eps": 1, "e": 2}
  )
  names = ("parameterization", "param")
  assert options.spelled(*names, default="eps") == "x0"
  assert options.spelled("loss_type", default="l2") == "l2"
  with pytest.raises(NotImplementedError, match=r"\['eps', 'e'\] are one"):
    options.spelled("eps", "e", default=0)
  options.expect(batch=2, res=(4, 6), width=7)
  with pytest.raises(NotImplementedError, match="'batch' is 2, but the arrays"):
    options.expect(batch=3)
  assert options.unread() == {"eps": 1, "e": 2}
  options.without_effect("eps", "e", "not there")
  assert not options.unread()


def test_unknown_cases_are_errors(tmp_path: Path):
  info = {"case": "nobody/net", "config": {}}
  (tmp_path / "nobody__net.json").write_text(json.dumps(info))
  np.savez(tmp_path / "nobody__net.npz", **{"out/y": np.ones(1)})
  ((place, stem),) = run.cases(str(tmp_path))
  assert harness.why_not("nobody/net") is None
  assert "no runner, and not in NOT_BUILT" in run.run(place, stem)[1]
  with pytest.raises(FileNotFoundError, match="no cases"):
    run.cases(str(tmp_path / "nothing"))


def test_the_longest_name_decides(monkeypatch):
  monkeypatch.setattr(harness, "NOT_BUILT", {"a/": "A", "a/bcd": "D"})
  monkeypatch.setattr(harness, "RUNNERS", {"a/b": dict, "a/bc": set})
  assert harness.find_runner("a/b_other_size") is dict
  assert harness.find_runner("a/bc") is set
  assert harness.why_not("a/x") == "not built: A"
  assert harness.why_not("a/bcd_2") == "not built: D"
  assert harness.why_not("a/bc") is None


def test_not_built_means_no_runner():
  assert not set(harness.NOT_BUILT) & set(harness.RUNNERS)
  for name, reason in harness.NOT_BUILT.items():
    assert reason and harness.why_not(name) == f"not built: {reason}"
