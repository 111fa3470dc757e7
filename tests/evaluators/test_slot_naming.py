"""Slots get their names from labels or by hand, never by a guess."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from data_pipelines import records
from data_pipelines.synthetic_heads import labels as labels_lib
from faceedit_jax.core import inference_record
from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import EvalContext, slot_naming

SIZE, CELLS = 16, 8
# Which quarter of the picture each slot looks at: hair, background, face,
# clothes, where regions lie top left, top right, bottom left, bottom right.
ORDER = ("hair", "background", "face", "clothes")
QUARTER = {"face": 0, "hair": 1, "clothes": 2, "background": 3}


def quarters(side):
  """Region (s, s) by quarter."""
  y, x = np.mgrid[:side, :side] >= side // 2
  return (2 * y + x).astype(np.uint8)


class Slotted:
  """Slots that look at quarters, or all at everything alike."""

  edit_inputs = ()
  inference_options = ("slot_names",)
  traced_options = ()
  alignment, keeps_frame = "synthetic_heads", True

  def __init__(self, sure=1.0):
    self.sure = sure

  def edit(self, variables, frozen, inputs, rng):
    raise AssertionError("naming edits nothing")

  def slot_masks(self, variables, image):
    del variables
    looks = np.stack([quarters(CELLS) == QUARTER[n] for n in ORDER], -1)
    masks = self.sure * looks + (1 - self.sure) * np.array([1.0, 0, 0, 0])
    return jnp.broadcast_to(
      jnp.asarray(masks, jnp.float32), (len(image), CELLS, CELLS, 4)
    )


def examples(field):
  draw = np.random.default_rng(0)
  for _ in range(5):
    example = {"image": draw.integers(0, 255, (SIZE, SIZE, 3), "uint8")}
    regions = quarters(SIZE)
    if field == "regions":
      example["regions"] = regions
    if field == "labels":  # a parser's classes
      names = ("nose", "hair", "cloth", "background")
      classes = np.array([labels_lib.LABEL[n] for n in names], np.uint8)
      example["labels"] = classes[regions]
    yield example


@pytest.fixture(params=["regions", "labels", ""])
def data_dir(request, tmp_path):
  records.write_records(
    tmp_path / "faces" / "validation", examples(request.param)
  )
  return tmp_path, request.param


def run(data_dir, out, recipe=None, **options):
  said = []
  evaluator = slot_naming.SlotNaming(
    data=dict(source=dict(kind="array_record", folder="faces")),
    image_size=SIZE,
    **options,
  )
  ctx = EvalContext(
    recipe or Slotted(),
    {},
    {},
    data_dir,
    out / "slots",
    said.append,
    stage_dir=out,
  )
  scores = evaluator.run(ctx)
  kept = inference_record.read(out).get("slot_names", {}).get("value")
  return scores, kept, said


def test_labels_name_the_slots(data_dir, tmp_path):
  folder, field = data_dir
  scores, kept, said = run(folder, tmp_path)
  assert scores["slot_0/share"] == pytest.approx(1 / 4)
  if field:
    assert tuple(kept) == ORDER
    assert scores["slot_0/iou_hair"] == pytest.approx(1)
    assert "5 pictures of split 'validation'" in said[-1]
  else:
    assert kept is None and "--slot_names=" in said[-1]
    assert "slot_0/iou_hair" not in scores
  sheet = np.asarray(Image.open(tmp_path / "slots" / "slots.png"))
  assert sheet.shape[1] > 5 * SIZE  # the picture and four slots
  table = (tmp_path / "slots" / "table.txt").read_text()
  assert (("slot_0" in table) and ("hair" in table)) == bool(field)


def test_names_said_by_hand_are_kept(data_dir, tmp_path):
  folder, _ = data_dir
  names = ("clothes", "hair", "face", "background")
  _, kept, said = run(folder, tmp_path, names=names)
  assert tuple(kept) == names and "by hand" in said[-1]
  with pytest.raises(ValueError, match="wanted one of"):
    run(folder, tmp_path, names=names[:3])


def test_slots_that_agree_with_nothing_get_no_names(tmp_path):
  records.write_records(tmp_path / "faces" / "test", examples("regions"))
  _, kept, said = run(tmp_path, tmp_path, recipe=Slotted(sure=0.0))
  assert kept is None
  assert "agree too little" in said[-1] and "--slot_names=" in said[-1]


def test_a_set_without_held_out_pictures_is_one_line(tmp_path):
  with pytest.raises(UserError, match="no held-out pictures") as caught:
    run(tmp_path, tmp_path)
  assert "\n" not in str(caught.value)


def test_pairs_serve_where_there_is_nothing_else(tmp_path):
  pairs = (
    {f"source_{k}": v for k, v in e.items()} for e in examples("regions")
  )
  records.write_records(tmp_path / "faces" / "pairs", pairs)
  _, kept, _ = run(tmp_path, tmp_path)
  assert tuple(kept) == ORDER


def test_more_slots_than_regions_are_named_by_their_parts(tmp_path):
  class Eight(Slotted):
    def slot_masks(self, variables, image):
      four = super().slot_masks(variables, image)
      left = (jnp.arange(CELLS) % 4 < 2)[None, None, :, None]
      return jnp.concatenate([four * left, four * ~left], -1)

  records.write_records(tmp_path / "faces" / "test", examples("regions"))
  _, kept, _ = run(tmp_path, tmp_path, recipe=Eight())
  assert tuple(kept) == ORDER * 2


def test_without_a_place_nothing_is_kept(tmp_path):
  records.write_records(tmp_path / "faces" / "test", examples("regions"))
  evaluator = slot_naming.SlotNaming(
    data=dict(source=dict(kind="array_record", folder="faces")),
    image_size=SIZE,
  )
  ctx = EvalContext(Slotted(), {}, {}, tmp_path, tmp_path / "o", print)
  evaluator.run(ctx)
  assert not list(tmp_path.rglob(inference_record.NAME))
