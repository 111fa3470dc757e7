"""Edits of one factor, on a world and an editor whose outcomes are known."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import records
from data_pipelines.synthetic_heads import pairs as pairs_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import EvalContext, single_factor
from tests.data_pipelines import fake_world

SIZE, PAIRS = 16, 3
FACTORS = single_factor.FACTORS
# A factor is the level of one channel.
CHANNEL = {"pose": 0, "expression": 1, "light": 2}


class Reader:
  """Reads each factor from its channel."""

  estimator = identity = None
  identity_size = 8

  def codes(self, nets, image):
    del nets
    level = image.mean(axis=(1, 2))
    count = len(level)
    return {
      "pose": jnp.zeros((count, 6)).at[:, 1].set(0.3 * level[:, 0]),
      "expression": jnp.zeros((count, 4)) + level[:, 1:2],
      "light": jnp.zeros((count, 9, 3)) + level[:, 2, None, None],
      "landmarks5": jnp.full((count, 5, 2), 0.5),
    }

  def features(self, nets, image):
    del nets
    return image.mean(axis=2).reshape(len(image), -1)[:, :4]

  def embed(self, nets, image, points):
    del nets, points
    flat = image.mean(axis=(1, 2)) + 3.0
    return flat / jnp.linalg.norm(flat, axis=-1, keepdims=True)


class Editor:
  """Takes the channel of each factor from its picture; `leaks` takes more."""

  def __init__(self, leaks=()):
    self.leaks = leaks

  def edit(self, variables, frozen, inputs, rng, camera_from="query"):
    del variables, frozen, rng
    assert camera_from == "source"
    image = inputs["source"]
    for factor, at in CHANNEL.items():
      image = image.at[..., at].set(inputs[f"{factor}_from"][..., at])
    for factor in self.leaks:  # the pose brings this along
      at = CHANNEL[factor]
      image = image.at[..., at].set(inputs["pose_from"][..., at])
    return {"image": image}


def pictures(count):
  draw = np.random.default_rng(1)
  tints = draw.integers(20, 235, (count, 1, 1, 3))
  return np.broadcast_to(tints, (count, SIZE, SIZE, 3)).astype(np.uint8)


@pytest.fixture
def data_dir(tmp_path):
  """The splits "test" of four people and, drawn by the fake world, "pairs"."""
  records.write_records(
    tmp_path / "faces" / "test",
    (
      {"image": image, "identity": np.int32(i // 2), "frame": np.int32(i % 2)}
      for i, image in enumerate(pictures(8))
    ),
  )
  pairs_lib.generate_pairs(
    tmp_path / "faces",
    count=PAIRS,
    size=SIZE,
    processes=0,
    progress=False,
    world=fake_world.__name__,
  )
  return tmp_path


def evaluator(**more):
  return single_factor.SingleFactorEvaluator(
    data=dict(source=dict(kind="array_record", folder="faces")),
    reader=Reader(),
    code_shapes={},
    image_size=SIZE,
    **more,
  )


def run(evaluator, data_dir, editor=None, **more):
  out, said = data_dir / "out", []
  ctx = EvalContext(
    editor or Editor(), {}, {}, data_dir, out, said.append, **more
  )
  return evaluator.run(ctx), out, said


def test_what_must_stay_stays_and_what_leaks_shows(data_dir):
  settings = evaluator(truths="none", pairs=4, people="other")
  good, out, _ = run(settings, data_dir, eval_nets={})
  leaking, _, _ = run(settings, data_dir, Editor(("light",)), eval_nets={})
  for changed in FACTORS:
    for factor in FACTORS:
      name = f"{changed}_only/%s/{factor}"
      # The angle of two nearly equal rotations is known to a few hundredths.
      assert good[name % "edit"] < 0.05
      there = good[name % "copy_source"]
      assert there > 0.1 if factor == changed else there < 0.05
  assert leaking["pose_only/edit/light"] > 0.1 > good["pose_only/edit/light"]
  assert leaking["light_only/edit/pose"] < 0.05
  assert good["pose_only/copy_source/identity"] == pytest.approx(1, abs=1e-5)
  text = (out / "table.txt").read_text()
  assert "pose only" in text and "frechet" not in text
  assert (out / "factors.png").stat().st_size > 100


def test_true_outcomes_are_drawn(data_dir):
  found, out, _ = run(evaluator(pairs=PAIRS), data_dir, eval_nets={})
  for changed in FACTORS:
    assert f"{changed}_only/edit/psnr" in found
    assert f"{changed}_only/edit/sharpness_face" in found
    assert f"{changed}_only/edit/frechet_identity" in found
    assert f"{changed}_only/truth/pose" in found
    assert f"{changed}_only/truth/psnr" not in found
  # The discs' colour tells the expression, and neither pose nor light.
  assert found["pose_only/copy_source/psnr"] == 100
  assert found["light_only/copy_source/psnr"] == 100
  assert found["expression_only/copy_source/psnr"] < 60
  assert "truth" in (out / "table.txt").read_text()


def test_single_truths_change_their_factor_alone(data_dir):
  settings = pairs_lib.PairSettings(
    "pairs", PAIRS, SIZE, world=fake_world.__name__
  )
  whole = pairs_lib.make_example(settings, 1)
  for changed in FACTORS:
    truth = pairs_lib.single_truth(settings, 1, changed)
    for factor in FACTORS:
      where = "query" if factor == changed else "source"
      np.testing.assert_array_equal(truth[factor], whole[f"{where}_{factor}"])
    np.testing.assert_array_equal(truth["shape"], whole["source_shape"])


def test_a_set_of_another_world_is_one_line(data_dir, monkeypatch):
  monkeypatch.setattr(fake_world, "VERSION", "later")
  with pytest.raises(UserError, match="'none'") as caught:
    run(evaluator(pairs=PAIRS), data_dir, eval_nets={})
  assert "is at later" in str(caught.value) and "\n" not in str(caught.value)


def test_a_short_look_leaves_it_out(data_dir):
  found, out, said = run(evaluator(), data_dir, quick=True)
  assert found == {} and not out.exists() and "left out" in said[0]
  short = dataclasses.replace(evaluator(), truths="none", quick=2)
  found, _, _ = run(short, data_dir, quick=True, eval_nets={})
  assert found


def test_without_nets_only_pictures_are_compared(data_dir):
  found, out, _ = run(evaluator(pairs=2), data_dir)
  assert "pose_only/edit/psnr" in found
  assert "pose_only/edit/pose" not in found
  assert "not trained yet" in (out / "table.txt").read_text()


def test_the_jaw_belongs_to_the_expression():
  source = dict(
    pose=jnp.arange(6.0)[None], expression=jnp.zeros((1, 2)), light=jnp.zeros(1)
  )
  query = {k: v + 10 for k, v in source.items()}
  made = single_factor.wanted_codes("expression", source, query)
  assert made["pose"].tolist() == [[0, 1, 2, 13, 14, 15]]
  assert made["expression"].tolist() == [[10, 10]] and made["light"] == 0
  made = single_factor.wanted_codes("pose", source, query)
  assert made["pose"].tolist() == [[10, 11, 12, 3, 4, 5]]
