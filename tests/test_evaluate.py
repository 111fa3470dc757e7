"""What a run of several evaluators says and leaves behind."""

import json
import types

from faceedit_jax import evaluate
from faceedit_jax.core.recipe import WeightSource


class _Evaluator:
  """Wants a net of a stage; writes a file only where it measures."""

  def __init__(self, scores):
    self._scores = scores

  def eval_nets(self):
    return {"reader": WeightSource(stage="eval_reader")}

  def run(self, ctx):
    assert ctx.eval_nets is None
    if self._scores:
      (ctx.out_dir / "table.txt").write_text("x")
    return self._scores


def test_a_missing_net_is_said_once_and_no_empty_folder_stays(tmp_path, capsys):
  stage = types.SimpleNamespace(
    recipe=None,
    workdir=tmp_path,
    directory=tmp_path / "gan",
    data_dir=tmp_path,
    evaluators={
      "first": _Evaluator({"psnr": 20}),
      "skipped": _Evaluator({}),
      "last": _Evaluator({"ssim": 0.5}),
    },
  )
  found = evaluate.run_evaluators(stage, {}, {}, step=7)
  assert found == {
    "first": {"psnr": 20.0},
    "skipped": {},
    "last": {"ssim": 0.5},
  }
  assert capsys.readouterr().out.count("need the net 'reader'") == 1
  out = tmp_path / "gan" / "evaluation" / "00000007"
  names = sorted(path.name for path in out.iterdir())
  assert names == ["first", "last", "results.json"]
  assert json.loads((out / "results.json").read_text()) == found
