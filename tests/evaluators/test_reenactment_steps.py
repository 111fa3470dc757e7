"""Table 1 with other numbers of sampling steps, and the quick look's own."""

import jax.numpy as jnp

from faceedit_jax import evaluators
from tests.evaluators.test_reenactment import (
  Editor,
  data_dir,
  evaluator,
  row,
  small_batches,
)

__all__ = ["data_dir", "small_batches"]  # fixtures
NETS = {"estimator": 0.5, "identity": jnp.ones(3)}


class Stepping(Editor):
  """The fewer steps, the farther from the query."""

  def __init__(self):
    super().__init__()
    self.seen = []

  def edit(self, variables, frozen, inputs, rng, steps=None):
    self.seen.append(steps)
    made = super().edit(variables, frozen, inputs, rng)
    if steps:
      made["image"] = made["image"] * (1 - 0.5 / steps)
    return made


def run(folder, out, quick=False, **options):
  editor = Stepping()
  scores = evaluator(pairs=5, **options).run(
    evaluators.EvalContext(
      editor, {}, {}, folder, out, lambda text: None, NETS, quick=quick
    )
  )
  return scores, editor.seen, (out / "table.txt").read_text(encoding="utf-8")


def test_numbers_of_steps_get_a_row_each(data_dir, tmp_path):  # noqa: F811
  scores, seen, text = run(
    data_dir, tmp_path, steps=(1, 8), steps_pairs=4, quick_steps=3
  )
  assert seen == [None, 1, 8]  # one program each
  assert scores["edit/APD-own"] == 0
  assert scores["edit_1_steps/APD-own"] > scores["edit_8_steps/APD-own"] > 0
  label = "measured here: edit, 8 sampling steps"
  assert row(text, label)["APD-own"] == f"{scores['edit_8_steps/APD-own']:.4f}"
  assert "the first 4 pairs" in text
  lines = [x for x in text.splitlines() if x.startswith("measured here")]
  assert [x.split("  ")[0] for x in lines] == [
    "measured here: edit",
    "measured here: edit, 1 sampling steps",
    label,
    "measured here: source left as it is",
  ]


def test_a_quick_look_has_its_own_steps(data_dir, tmp_path):  # noqa: F811
  scores, seen, text = run(
    data_dir, tmp_path, quick=True, steps=(1, 8), quick_steps=3
  )
  assert seen == [3] and "in 3 steps" in text
  assert not any("_steps/" in name for name in scores)
  own, seen, _ = run(data_dir, tmp_path, quick=True)
  assert seen == [None]
  assert own["edit/APD-own"] == 0 < scores["edit/APD-own"]
