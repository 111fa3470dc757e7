"""Edits compared with the truth, on a recipe whose edits are known."""

import dataclasses
import json
import types

import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax import evaluators
from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import EvalContext, common, counterfactual


class PerfectReader:
  """Reads codes that were painted into the picture's corner pixels."""

  estimator = identity = None
  identity_size = 8

  def codes(self, frozen, image):
    del frozen
    b = image.shape[0]
    level = image.mean(axis=(1, 2, 3))
    return {
      "pose": jnp.zeros((b, 6)).at[:, 1].set(level),
      "expression": jnp.zeros((b, 4)) + level[:, None],
      "gaze": jnp.zeros((b, 2)),
      "light": jnp.zeros((b, 9, 3)) + level[:, None, None],
      "landmarks5": jnp.full((b, 5, 2), 0.5),
    }

  def features(self, frozen, image):
    del frozen
    return image.mean(axis=2).reshape(image.shape[0], -1)[:, :6]

  def embed(self, frozen, image, points):
    del frozen, points
    flat = image.mean(axis=(1, 2)) + 2.0
    return flat / jnp.linalg.norm(flat, axis=-1, keepdims=True)


class CopyQuery:
  """An editor that hands back the picture the pose comes from."""

  camera_from = "source"

  def edit(
    self, variables, frozen, inputs, rng, camera_from="source", steps=None
  ):
    del variables, frozen, rng, camera_from
    image = inputs.get("pose_from", inputs["source"])
    if steps:  # the fewer, the farther from the query
      image = image * (1 - 0.5 / steps)
    for name, rows in (("hair", slice(0, 4)), ("clothes", slice(12, 16))):
      if f"{name}_from" in inputs:
        image = image.at[:, rows].set(inputs[f"{name}_from"][:, rows])
    top = jnp.arange(16)[:, None] < 4
    masks = jnp.stack([~top, top, 0 * top, 0 * top], axis=-1)
    masks = jnp.broadcast_to(masks, (image.shape[0], 16, 16, 4))
    return {
      "image": image,
      "rendering": jnp.full_like(image, 1.0),
      # The head is the left half of the picture.
      "head": jnp.zeros(image.shape[:3]).at[:, :, :8].set(1.0),
      "slots": masks.astype(jnp.float32),
    }

  def encode(self, frozen, image):
    del frozen
    return image

  def decode(self, frozen, latent):
    del frozen
    return latent


@dataclasses.dataclass(frozen=True)
class Evaluator(counterfactual.CounterfactualEvaluator):
  """Reads its examples from memory."""

  def open(self, split, data_dir):
    del data_dir
    rng = np.random.default_rng({"pairs": 1, "swaps": 2}[split])
    examples = []
    for _ in range(5):
      example = {}
      for prefix in ("source", "query", "truth"):
        example[f"{prefix}_image"] = rng.integers(0, 255, (16, 16, 3), "uint8")
        regions = np.zeros((16, 16), np.uint8)
        regions[:4], regions[12:] = 1, 2
        example[f"{prefix}_regions"] = regions
      example["truth_image"] = example["query_image"]
      for region in ("hair", "clothes", "background"):
        example[f"{region}_truth_image"] = example["source_image"]
        example[f"{region}_truth_regions"] = regions
      level = float(example["truth_image"].mean() / 127.5 - 1)
      example["truth_pose"] = np.zeros(6, np.float32)
      example["truth_pose"][1] = level
      example["truth_expression"] = np.full(4, level, np.float32)
      example["truth_gaze"] = np.zeros(2, np.float32)
      example["truth_light"] = np.full((9, 3), level, np.float32)
      examples.append(example)
    return examples


def context(out, **more):
  return EvalContext(CopyQuery(), {}, {}, out, out, lambda text: None, **more)


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
  out = tmp_path_factory.mktemp("scores")
  evaluator = Evaluator(
    data={}, reader=PerfectReader(), code_shapes={}, image_size=16
  )
  found = evaluator.run(context(out, eval_nets={}))
  return found, out


def test_the_method_that_hits_the_truth_wins(scores):
  found, _ = scores
  assert found["edit/psnr"] == found["copy_query/psnr"] == 100.0
  assert found["edit/psnr"] > found["copy_source/psnr"] + 50
  assert found["edit/ssim"] == pytest.approx(1.0, abs=1e-5)
  assert found["edit/error_hair"] == 0 < found["copy_source/error_hair"]
  assert found["edit/pose"] < 0.05 < found["copy_source/pose"]
  assert found["edit/light"] == pytest.approx(0, abs=1e-6)
  assert found["reconstruction/psnr"] == 100.0


def test_reading_error_of_a_perfect_reader_is_small(scores):
  found, _ = scores
  assert found["eval_net_error/light"] < 1e-5
  assert found["eval_net_error/pose"] < 0.05


def test_slots_are_named_on_other_pictures(scores):
  found, _ = scores
  # Hair is exact, face holds the clothes too, the rest is missing.
  assert found["slots/iou_hair"] == 1.0
  assert found["slots/iou_face"] == pytest.approx(8 / 12)
  assert found["slots/iou_clothes"] == 0.0
  # The constant mask knows all three regions; the absent fourth counts 0.
  assert found["slots/miou_constant_mask"] == pytest.approx(3 / 4)
  assert found["slots/variance_between_pictures"] == pytest.approx(0, abs=1e-7)


def test_swaps_change_their_own_region(scores):
  found, _ = scores
  assert found["swap_hair/change_in_hair"] > 0.1
  assert found["swap_hair/change_in_face"] == 0
  assert found["swap_clothes/change_in_clothes"] > 0.1
  assert found["swap_hair/true_change_in_hair"] == 0
  assert found["swap_hair/error_in_hair"] > 0.1


def test_a_shorter_haircut_counts_as_hair():
  source = np.array([[[1, 1, 0, 3]]])
  truth = np.array([[[1, 0, 0, 2]]])
  where = counterfactual.swap_regions(source, truth, 1)
  assert where.tolist() == [[[1, 1, 0, -1]]]


def test_the_rendering_is_pasted_where_the_head_is(scores):
  found, _ = scores
  # White over half of every picture is worse than leaving it as it is.
  assert found["pasted_rendering/psnr"] < found["copy_source/psnr"]


def test_a_true_picture_keeps_its_identity(scores):
  found, _ = scores
  assert found["eval_net_error/identity_of_truth"] == pytest.approx(
    found["copy_query/identity"], abs=1e-5
  )


def test_sheets_and_tables_are_written(scores):
  found, out = scores
  for name in ("edits.png", "swaps.png", "table.txt", "table.json"):
    assert (out / name).stat().st_size > 50
  text = (out / "table.txt").read_text()
  assert "camera from the source" in text
  assert "copy_source" in text
  whole = json.loads((out / "table.json").read_text())
  np.testing.assert_equal(whole["scores"], found)
  line = next(x for x in text.splitlines() if x.startswith("edit "))
  assert "100.0000" in line.split()


def test_without_eval_nets_the_rest_is_measured(tmp_path):
  evaluator = Evaluator(
    data={}, reader=PerfectReader(), code_shapes={}, image_size=16
  )
  found = evaluator.run(context(tmp_path, quick=True))
  assert "edit/psnr" in found
  assert not any("pose" in name or "identity" in name for name in found)


def test_numbers_of_steps_get_a_row_each(tmp_path):
  evaluator = Evaluator(
    data={},
    reader=PerfectReader(),
    code_shapes={},
    image_size=16,
    steps=(1, 8),
    steps_pairs=2,
  )
  found = evaluator.run(context(tmp_path / "whole", eval_nets={}))
  one, eight = (found[f"edit_{n}_steps/psnr"] for n in (1, 8))
  assert one < eight < found["edit/psnr"]
  assert "edit_8_steps/light" in found and "edit_8_steps/identity" in found
  lines = (tmp_path / "whole" / "table.txt").read_text().splitlines()
  rows = [line.split()[0] for line in lines[2:6]]
  assert rows == ["edit", "edit_1_steps", "edit_8_steps", "copy_source"]
  assert "on the first 5 pairs" in "".join(lines)
  quick = evaluator.run(context(tmp_path / "quick", quick=True))
  assert not any("steps" in name for name in quick)


def test_steps_that_cannot_be_are_one_line():
  class Plain(CopyQuery):
    face = types.SimpleNamespace(reader=None, code_shapes={})

    def edit(self, variables, frozen, inputs, rng, camera_from="source"):
      raise AssertionError

  def built(recipe, steps):
    setup = evaluators.Setup(recipe, {}, {}, 16, "float32", "config.here")
    common.check_steps(steps, setup)

  built(Plain(), ())
  with pytest.raises(UserError, match="config.here: Plain takes no number"):
    built(Plain(), (2,))
  with pytest.raises(UserError, match="config.here: 0 sampling steps"):
    built(CopyQuery(), (2, 0))


def test_swaps_without_names_are_left_out(tmp_path):
  class Unnamed(CopyQuery):
    def check_edit(self, variables, inputs):
      raise ValueError("hair_from needs names")

  said = []
  evaluator = Evaluator(
    data={}, reader=PerfectReader(), code_shapes={}, image_size=16
  )
  found = evaluator.run(
    EvalContext(Unnamed(), {}, {}, tmp_path, tmp_path, said.append)
  )
  assert "swaps are left out: hair_from needs names" in said
  assert "edit/psnr" in found
  assert not any(name.startswith("swap_") for name in found)


def test_sharpness_and_sets_are_compared(scores):
  found, out = scores
  assert found["edit/sharpness_hair"] == pytest.approx(1, abs=1e-5)
  assert found["edit/frechet_identity"] == pytest.approx(0, abs=1e-5)
  assert found["copy_source/frechet_estimator"] > 1e-4
  assert "no FID" in (out / "table.txt").read_text()
