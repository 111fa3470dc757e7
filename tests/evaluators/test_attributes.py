"""Measures of attribute edits whose numbers are known beforehand."""

import json
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from data_pipelines import records
from data_pipelines.synthetic_heads import labels
from faceedit_jax import evaluators
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import attribute_fid
from faceedit_jax.evaluators import attributes as attribute_evaluator
from faceedit_jax.evaluators import common as eval_common
from faceedit_jax.metrics import fid as fid_lib
from faceedit_jax.models.perception.inception import Inception
from faceedit_jax.nn import warp
from tests.models.counts import array, shapes

SIDE, TRUTHS = 24, 8
# Where a picture shows each attribute: rows of its columns 4 to 9.
ROWS = {"Smiling": slice(4, 8), "Bangs": slice(15, 19)}
COLUMNS = slice(4, 10)
EDITED = ("Smiling", "Bangs")
NAMES = labels.ATTRIBUTE_NAMES
BANGS, SMILING = NAMES.index("Bangs"), NAMES.index("Smiling")
LEVEL = (20, 200)  # of a picture without and with it
POINTS = np.float32(warp.ARCFACE5)  # the crop is the whole picture
COUNT = 11  # Smiling six times, Bangs five times


def picture(rng, has):
  """Noise with a block per attribute, and its 26 attributes."""
  image = rng.integers(60, 190, (SIDE, SIDE, 3), dtype=np.uint8)
  values = np.zeros(len(NAMES), np.int8)
  for name, value in zip(EDITED, has, strict=True):
    image[ROWS[name], COLUMNS] = LEVEL[value] + rng.integers(-9, 9)
    values[NAMES.index(name)] = value
  return image, values


def edits():
  """The split `attributes`."""
  rng = np.random.default_rng(0)
  for i in range(COUNT):
    attribute, has = i % 2, rng.integers(0, 2, 2)
    has[attribute] = i // 2 % 2
    image, values = picture(rng, has)
    target = 1 - has[attribute]
    example = {
      "source_image": image,
      "source_attributes": values,
      "source_landmarks5": POINTS,
      "attribute": np.int32(attribute),
      "target": np.int32(target),
    }
    for k in range(TRUTHS):
      truth = image.copy()
      truth[ROWS[EDITED[attribute]], COLUMNS] = LEVEL[target] + 2 * k
      example[f"truth{k}_image"] = truth
    yield example


def plain(seed, count):
  """Pictures with their attributes."""
  rng = np.random.default_rng(seed)
  for _ in range(count):
    image, values = picture(rng, rng.integers(0, 2, 2))
    yield {"image": image, "attributes": values, "landmarks5": POINTS}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  world = {"generator": "synthetic_heads"}
  edited = world | {"attributes": list(EDITED)}
  records.write_records(folder / "set/attributes", edits(), settings=edited)
  for split, count in (("train", 13), ("test", 9)):
    records.write_records(
      folder / "set" / split, plain(count, count), settings=world
    )
  return folder


@pytest.fixture(scope="module", autouse=True)
def small_batches():
  """Two batches for three edits, so that the last one is filled up."""
  before, eval_common.BATCH = eval_common.BATCH, 2
  yield
  eval_common.BATCH = before


class Reader:
  """Logits are the brightness of the blocks; one of the two may err."""

  def logits(self, weight, image, points):
    assert points.shape == (len(image), 5, 2)
    seen = [image[:, ROWS[n], COLUMNS].mean((1, 2, 3)) for n in EDITED]
    return weight * jnp.stack(seen, axis=-1)


class Who(nn.Module):
  """An embedding from the whole crop."""

  def __call__(self, x):
    return x[:, ::5, ::5].reshape(len(x), -1)


class Editor:
  """Leaves the picture, or pastes the first true outcome."""

  def __init__(self, kind):
    self.kind, self.asked = kind, []

  def edit(self, variables, frozen, inputs, rng, *, attribute, has):
    del variables, frozen, rng
    assert has == (attribute[0] == "-"), "the set knows what its sources have"
    self.asked.append(attribute)
    image = inputs["source"]
    assert len(image) == len(inputs["row"]) == eval_common.BATCH
    if self.kind == "paste":
      level = LEVEL[attribute[0] == "+"] / np.float32(127.5) - 1
      image = image.at[:, ROWS[attribute[1:]], COLUMNS].set(level)
    return {"image": image}


WHERE = "config.stage.gan.evaluators.attributes"


def evaluator(**more):
  settings = dict(
    data=dict(source=dict(kind="array_record", folder="set")),
    attributes=EDITED,
    reads=EDITED,
    reader=Reader(),
    identity=Who(),
    identity_size=16,
    image_size=SIDE,
    where=WHERE,
  )
  return attribute_evaluator.AttributeEvaluator(**{**settings, **more})


NETS = {"classifier": 4.0, "identity": {}}


def run(kind, data_dir, out, nets=NETS, quick=False, **more):
  editor = Editor(kind)
  said: list[str] = []
  scores = evaluator(**more).run(
    evaluators.EvalContext(
      editor, {}, {}, data_dir, out, said.append, nets, quick
    )
  )
  return scores, editor, said


def by_hand(direction):
  """Region measures of a copied source, one pixel after the other."""
  sign, name = direction[0], direction[1:]
  at, target = EDITED.index(name), int(sign == "+")
  first, second = [], []
  for example in edits():
    if (example["attribute"], example["target"]) != (at, target):
      continue
    rows = range(ROWS[name].start - 2, ROWS[name].stop + 2)
    columns = range(COLUMNS.start - 2, COLUMNS.stop + 2)
    pixels = np.ix_(rows, columns)
    source = example["source_image"].astype(np.float64) / 255
    gaps = [
      source[pixels]
      - example[f"truth{k}_image"].astype(np.float64)[pixels] / 255
      for k in range(TRUTHS)
    ]
    first.append(min(np.abs(gap).mean() for gap in gaps))
    second.append(min(np.square(gap).mean() for gap in gaps))
  return len(first), np.mean(first), np.mean(second)


DIRECTIONS = ("+Smiling", "-Smiling", "+Bangs", "-Bangs")


def test_the_source_left_as_it_is(data_dir, tmp_path):
  scores, editor, _ = run("leave", data_dir, tmp_path)
  assert sorted(editor.asked) == sorted(DIRECTIONS), "compiled once each"
  for direction in DIRECTIONS:
    count, absolute, squared = by_hand(direction)
    assert scores[f"count/{direction}"] == count
    assert scores[f"edit/{direction}/correct"] == 0
    assert scores[f"copy/{direction}/correct"] == 0
    assert scores[f"edit/{direction}/identity"] == pytest.approx(1, abs=1e-6)
    assert scores[f"edit/{direction}/others_flipped"] == 0
    assert scores[f"edit/{direction}/others_changed"] == 0
    assert scores[f"edit/{direction}/outside_psnr"] == 100
    for method in ("edit", "copy"):
      found = scores[f"{method}/{direction}/inside_l1"]
      assert found == pytest.approx(absolute, rel=1e-5)
      found = scores[f"{method}/{direction}/inside_l2"]
      assert found == pytest.approx(squared, rel=1e-5)
    for name in ("psnr", "ssim"):
      edit, copy = (scores[f"{m}/{direction}/{name}"] for m in ("edit", "copy"))
      assert edit == pytest.approx(copy, rel=1e-6)


def test_a_true_outcome(data_dir, tmp_path):
  scores, _, _ = run("paste", data_dir, tmp_path)
  for direction in DIRECTIONS:
    assert scores[f"edit/{direction}/correct"] == 1
    assert scores[f"truth/{direction}/correct"] == 1
    assert scores[f"edit/{direction}/inside_l1"] == pytest.approx(0, abs=1e-6)
    assert scores[f"edit/{direction}/inside_l2"] == pytest.approx(0, abs=1e-9)
    assert scores[f"edit/{direction}/psnr"] == 100
    assert scores[f"edit/{direction}/ssim"] == pytest.approx(1, abs=1e-5)
    # What lies outside the region is the source's.
    for method in ("edit", "truth"):
      assert scores[f"{method}/{direction}/outside_psnr"] == 100
      assert scores[f"{method}/{direction}/others_flipped"] == 0
    edit, truth = (
      scores[f"{m}/{direction}/identity"] for m in ("edit", "truth")
    )
    assert edit == pytest.approx(truth, abs=1e-6)
    assert edit < 0.999
  counts = [scores[f"count/{name}"] for name in ("Smiling", "Bangs", "all")]
  assert counts == [6, 5, COUNT]


def test_attributes_are_averaged_over_edits_not_directions(data_dir, tmp_path):
  scores, _, _ = run("leave", data_dir, tmp_path)
  (n, given), (m, taken) = (
    (scores[f"count/{d}"], scores[f"copy/{d}/inside_l1"])
    for d in ("+Bangs", "-Bangs")
  )
  assert n != m
  both = scores["copy/Bangs/inside_l1"]
  assert both == pytest.approx((n * given + m * taken) / (n + m), rel=1e-6)


def test_the_classifiers_own_accuracy_is_printed(data_dir, tmp_path):
  nets = NETS | {"classifier": jnp.asarray([4.0, -4.0])}  # the second errs
  scores, _, said = run("paste", data_dir, tmp_path, nets)
  for kind in ("sources", "truths"):
    assert scores[f"classifier/Smiling/accuracy_{kind}"] == 1
    assert scores[f"classifier/Bangs/accuracy_{kind}"] == 0
  assert scores["edit/+Bangs/correct"] == scores["truth/+Bangs/correct"] == 0
  text = (tmp_path / "table.txt").read_text(encoding="utf-8")
  assert "Smiling 1.000 of the sources, Bangs 0.000 of the sources" in text
  assert said[-1] == "\n" + text.rstrip("\n")


def test_the_table_and_the_sheet(data_dir, tmp_path):
  scores, _, _ = run("paste", data_dir, tmp_path)
  text = (tmp_path / "table.txt").read_text(encoding="utf-8")
  lines = text.splitlines()
  assert lines[0] == "11 edits of split 'attributes'"
  (at,) = [i for i, line in enumerate(lines) if line.startswith("+Smiling")]
  edit, copy, truth = lines[at : at + 3]
  assert edit.split()[:3] == ["+Smiling", "edit", "1.000"]
  assert copy.split()[:5] == ["source", "as", "it", "is", "0.000"]
  assert f"{scores['copy/+Smiling/inside_l1']:.4f}" in copy
  assert truth.split()[:4] == ["a", "true", "outcome", "1.000"]
  assert "4/255 in any channel, and 2 pixels round" in text
  for net in ("inception", "inception_torchvision"):
    end = f"it goes into {WHERE}.weights.{net}"
    (line,) = [x for x in lines if x.endswith(end)]
    assert ": -, no file" in line and f"convert {net} " in line
  whole = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
  assert whole["scores"] == scores
  sheet = np.asarray(Image.open(tmp_path / "edits.png"))
  # The first examples of each direction, no more than a batch has.
  shown = sum(min(eval_common.BATCH, by_hand(d)[0]) for d in DIRECTIONS)
  # Enlarged, each below its name.
  times = -(-160 // SIDE)
  cell, label, gap = times * SIDE, 20, 4
  high, wide = label + cell + gap, cell + gap
  assert sheet.shape == (shown * high, 4 * wide + gap, 3)
  source, smile, bangs, truth = (
    sheet[label : label + cell : times, gap + c * wide :][:, :cell:times]
    for c in range(4)
  )
  assert (sheet[:label, gap : gap + cell] < 128).any(), "no name"
  (first,) = [e for e in edits() if e["target"] and not e["attribute"]][:1]
  np.testing.assert_array_equal(source, first["source_image"])
  np.testing.assert_array_equal(smile, first["truth0_image"])
  np.testing.assert_array_equal(truth, first["truth0_image"])
  has = first["source_attributes"][BANGS]
  assert (bangs[ROWS["Bangs"], COLUMNS] == LEVEL[1 - has]).all()


def test_without_eval_nets_pictures_are_compared(data_dir, tmp_path):
  scores, _, _ = run("paste", data_dir, tmp_path, None, quick=True)
  kinds = {name.split("/")[-1] for name in scores if name[:5] != "count"}
  assert kinds == {"inside_l1", "inside_l2", "outside_psnr", "psnr", "ssim"}
  text = (tmp_path / "table.txt").read_text(encoding="utf-8")
  assert "the evaluation nets are not trained yet" in text


def test_pictures_without_outcomes(data_dir, tmp_path):
  """Each attribute of each picture is turned."""
  scores, _, _ = run(
    "paste", data_dir, tmp_path, counterfactuals=False, split="test"
  )
  assert scores["count/all"] == 18 and scores["count/Bangs"] == 9
  with_smile = sum(e["attributes"][SMILING] for e in plain(9, 9))
  assert scores["count/-Smiling"] == with_smile
  assert scores["edit/all/correct"] == 1 and scores["copy/all/correct"] == 0
  kinds = {name.split("/")[-1] for name in scores if name[:4] == "edit"}
  assert kinds == {"correct", "identity", "others_flipped", "others_changed"}
  assert not any(name.startswith("truth") for name in scores)
  few, _, _ = run(
    "paste", data_dir, tmp_path, counterfactuals=False, split="test", edits=4
  )
  assert few["count/all"] == 8


def test_one_attribute_of_a_set_with_more(data_dir, tmp_path):
  scores, editor, _ = run("paste", data_dir, tmp_path, attributes=("Bangs",))
  assert set(editor.asked) == {"+Bangs", "-Bangs"}
  assert scores["count/all"] == 5
  assert scores["edit/all/others_flipped"] == 0
  assert "classifier/Smiling/accuracy_sources" in scores


NET = Inception(width=2, classes=2)


@pytest.fixture
def inception(monkeypatch):
  """A narrow network in place of the published one, and weights for it."""
  variant = attribute_fid.Variant("pytorch-fid", NET, "inception x.pth")
  monkeypatch.setattr(attribute_fid, "VARIANTS", {"inception": variant})
  rng = np.random.default_rng(5)

  def draw(path, leaf):
    """Lets a signal through to the last layer."""
    if path[-1].key == "kernel":
      spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      return np.float32(spread * rng.normal(size=leaf.shape))
    whole = path[-1].key in ("scale", "var")
    return np.full(leaf.shape, float(whole), np.float32)

  wanted = shapes(NET, array(1, 80, 80, 3))
  return jax.tree_util.tree_map_with_path(draw, wanted)


def test_fid_of_each_direction(data_dir, tmp_path, inception):
  """True pictures with the value against edits of those without it."""
  nets = NETS | {"inception": inception}
  scores, _, _ = run("paste", data_dir, tmp_path, nets)
  read = fid_lib.Reader(NET, inception, batch=1)
  for direction in DIRECTIONS:
    at, wanted = NAMES.index(direction[1:]), int(direction[0] == "+")
    real = [e["image"] for e in plain(13, 13) if e["attributes"][at] == wanted]
    held = [e["image"] for e in plain(9, 9) if e["attributes"][at] != wanted]
    made = [image.copy() for image in held]
    for image in made:
      image[ROWS[direction[1:]], COLUMNS] = LEVEL[wanted]
    states = [
      read.empty().add(read(np.stack(pictures)))
      for pictures in (real, held, made)
    ]
    for method, state in zip(("copy", "edit"), states[1:], strict=True):
      found = scores[f"{method}/{direction}/FID-pytorch-fid"]
      assert found == pytest.approx(fid_lib.fid(state, states[0]), rel=1e-3)
  mean = np.mean([scores[f"edit/{d}/FID-pytorch-fid"] for d in DIRECTIONS])
  assert scores["edit/all/FID-pytorch-fid"] == pytest.approx(mean)
  text = (tmp_path / "table.txt").read_text(encoding="utf-8")
  head = next(x for x in text.splitlines() if x.startswith("attribute"))
  assert head.split()[-1] == "FID-pytorch-fid"
  assert "true pictures of split 'train' with the wanted value" in text


def test_outputs_of_one_picture_have_noise_of_their_own(data_dir, inception):
  rows: dict[str, list] = {}

  def editors(direction, image, first):
    rows.setdefault(direction, []).extend(first + np.arange(len(image)))
    return image

  settings = evaluator(fid=attribute_fid.Protocol(outputs=3, pictures=5))
  nets = {"inception": inception}
  _, notes = attribute_fid.run(settings, editors, nets, data_dir, print)
  for direction, used in rows.items():
    at, wanted = NAMES.index(direction[1:]), int(direction[0] == "+")
    held = [e["attributes"][at] != wanted for e in plain(9, 9)][:5]
    assert len(used) == len(set(used)) == 3 * sum(held)
  assert any("3 of each" in note for note in notes)


def build(**section):
  """Built from a config, for a recipe that edits smiles."""
  nets = config_lib.load("configs/difffae.py").nets.to_dict()
  nets["classifier"] = dict(stages=(1, 1), width=4, input_size=32, reach=6.0)
  setup = evaluators.Setup(
    recipe=types.SimpleNamespace(attributes=("Smiling",), edit=None),
    nets=config_lib.from_dict(nets),
    data=dict(source=dict(kind="array_record", folder="set")),
    image_size=64,
    dtype="float32",
    where=WHERE,
  )
  return evaluators.build(dict(kind="attributes", **section), setup)


def test_it_is_built_from_a_config():
  made = build(
    split="test",
    counterfactuals=False,
    edits=40,
    reads=("Male", "Smiling"),
    weights=dict(identity="arcface.safetensors", inception=""),
    fid=dict(outputs=10),
  )
  assert isinstance(made, attribute_evaluator.AttributeEvaluator)
  assert (made.split, made.edits, made.counterfactuals) == ("test", 40, False)
  assert made.fid.outputs == 10 and made.fid.true_split == "train"
  found = {net: (s.stage, s.path) for net, s in made.eval_nets().items()}
  assert found == {
    "classifier": ("eval_attributes", ""),
    "identity": ("", "arcface.safetensors"),
  }
  structure = jax.eval_shape(made.init_eval_nets, jax.random.key(0))
  assert structure["classifier"]["params"]["fc"]["kernel"].shape == (8, 2)
  assert set(structure) == set(found)


def test_data_and_names_are_said_once():
  made = build()
  assert made.data == dict(source=dict(kind="array_record", folder="set"))
  assert made.reads == ("Smiling",)
  other = build(data=dict(source=dict(kind="array_record", folder="other")))
  assert other.data["source"]["folder"] == "other"


@pytest.mark.parametrize(
  "more, message",
  [
    (dict(weights=dict(fid="x")), "weights has no key 'fid'"),
    (dict(weights=dict(idenity="x")), "did you mean 'identity'"),
    (dict(reads=("Male",)), r"reads lacks \['Smiling'\]"),
    (dict(splitt="test"), "no key 'splitt'; did you mean 'split'"),
    (dict(fid=dict(outputs="3")), "fid.outputs is '3', wanted a whole number"),
    (dict(image_size=3), "no key 'image_size'"),
  ],
)
def test_settings_that_are_none(more, message):
  with pytest.raises(UserError, match=f"^{WHERE}.*{message}") as caught:
    build(**more)
  assert "\n" not in str(caught.value)


def test_sets_that_do_not_fit(data_dir, tmp_path):
  with pytest.raises(ValueError, match="does not say which attributes"):
    run("leave", data_dir, tmp_path, split="test")
  with pytest.raises(ValueError, match=r"no attributes \['Beauty'\]"):
    run("leave", data_dir, tmp_path, reads=("Smiling", "Beauty"))
  with pytest.raises(ValueError, match="holds no edit of"):
    run("leave", data_dir, tmp_path, attributes=("Male",), reads=("Male",))
