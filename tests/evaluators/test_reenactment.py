"""The paper's measures on edits whose outcome is known, and the table."""

import dataclasses
import json
import types

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import records, transforms
from faceedit_jax import convert, evaluate, evaluators
from faceedit_jax.core.errors import CheckpointError
from faceedit_jax.evaluators import common as eval_common
from faceedit_jax.evaluators import reenactment, reenactment_table
from faceedit_jax.faces import face_reader
from faceedit_jax.metrics import fid
from faceedit_jax.metrics import reenactment as distances
from faceedit_jax.models.faces import deep3d
from faceedit_jax.models.faces.iresnet import IResNet
from faceedit_jax.models.perception.inception import Inception
from tests.models.counts import array, randomised, shapes

SIDE, PEOPLE, FRAMES, PAIRS = 24, 3, 3, 5
STANDARD = np.array(
  [[-3, 3, 1], [3, 3, 1], [0, 0, 5], [-2, -4, 2], [2, -4, 2]], np.float64
)


class Reader:
  """Codes and embeddings from mean colours."""

  estimator = identity = None
  identity_size = 8

  def codes(self, nets, image):
    level = image.mean(axis=(1, 2)) * nets["estimator"]
    return {
      "pose": jnp.pad(level, ((0, 0), (0, 3))),
      "expression": level[:, :2],
      "light": jnp.broadcast_to(level[:, None], (len(level), 9, 3)),
    }

  def embed(self, nets, image, points):
    del points
    flat = image.mean(axis=(1, 2)) + nets["identity"]
    return flat / jnp.linalg.norm(flat, axis=-1, keepdims=True)


class Editor:
  """Hands back the query, or the source a little darker."""

  def __init__(self, kind="query", lost=()):
    self.kind, self.lost = kind, lost

  def edit(self, variables, frozen, inputs, rng):
    del variables, frozen, rng
    assert inputs["pose_from"].shape == inputs["light_from"].shape
    made = {
      "query": inputs["expression_from"],
      "darker": 0.8 * inputs["source"] - 0.2,
    }[self.kind]
    return {"image": made, "rendering": inputs["source"]}

  def find_points(self, variables, frozen, image):
    del variables, frozen
    points = jnp.asarray(STANDARD[:, :2] * (1, -1) / 20 + 0.5, jnp.float32)
    points = jnp.broadcast_to(points, (len(image), 5, 2))
    return points, jnp.ones(len(image))


@pytest.fixture(scope="module", autouse=True)
def small_batches():
  """Two batches for five pairs, so that the last one is filled up."""
  before, eval_common.BATCH = eval_common.BATCH, 4
  yield
  eval_common.BATCH = before


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """Prepared records of three people."""
  folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(3)

  def examples():
    for who in range(PEOPLE):
      for frame in range(FRAMES):
        tint = rng.integers(0, 200, 3)
        image = tint + rng.integers(0, 56, (SIDE, SIDE, 3))
        yield {
          "image": image.astype(np.uint8),
          "identity": np.int32(who),
          "frame": np.int32(frame),
        }

  records.write_records(folder / "faces" / "test", examples())
  return folder


@pytest.fixture(scope="module")
def eval_nets(tmp_path_factory):
  """Narrow nets, and the file of standard points."""
  rng = np.random.default_rng(5)
  face = deep3d.Deep3D((1, 1, 1, 1), 2)
  points = tmp_path_factory.mktemp("points") / "points.npy"
  np.save(points, STANDARD)

  def draw(path, leaf):
    """Weights that let a signal through to the last layer."""
    if path[-1].key == "kernel":
      spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      return jnp.asarray(spread * rng.normal(size=leaf.shape), jnp.float32)
    return jnp.full(leaf.shape, float(path[-1].key in ("scale", "var")))

  def weights(net, side):
    wanted = shapes(net, array(1, side, side, 3))
    return jax.tree_util.tree_map_with_path(draw, wanted)

  net = Inception(width=2, classes=2)
  return {
    "settings": dict(inception=net, face=face, standard_points=str(points)),
    "nets": {
      "inception": weights(net, 80),
      "face": weights(face, 224),
      "identity": jnp.asarray([2.0, 1.5, 1.0]),
    },
  }


def evaluator(**more):
  settings = dict(
    data=dict(source=dict(kind="array_record", folder="faces")),
    reader=Reader(),
    code_shapes={},
    image_size=SIDE,
    pairs=PAIRS,
    where=WHERE,
  )
  settings |= more
  settings["weights"] = reenactment.Files(**settings.get("weights", {}))
  return reenactment.ReenactmentEvaluator(**settings)


WHERE = "config.stage.denoiser.evaluators.reenactment"
FILES = dict(inception="a", face="b", identity="c")


@pytest.fixture(scope="module")
def measured(eval_nets, data_dir, tmp_path_factory):
  """A whole run with all three nets, on the editor that copies queries."""
  out, said = tmp_path_factory.mktemp("out"), []
  settings = evaluator(weights=FILES, **eval_nets["settings"])
  scores = settings.run(
    evaluators.EvalContext(
      Editor(), {}, {}, data_dir, out, said.append, eval_nets["nets"]
    )
  )
  return settings, scores, out, said


def test_an_edit_that_is_the_query_is_at_no_distance(measured):
  _, scores, _, _ = measured
  for name in ("APD", "AED", "ALD"):
    assert scores[f"edit/{name}"] == 0
    assert scores[f"copy_source/{name}"] > 0.01
  assert 0 <= scores["edit/FID"] < 1e-3 * scores["copy_source/FID"]
  assert scores["edit/CSIM"] < 0.999
  assert scores["copy_source/CSIM"] == pytest.approx(1, abs=1e-6)
  assert scores["count/pairs"] == PAIRS


def test_distances_are_those_of_crops_read_one_by_one(
  measured, eval_nets, data_dir
):
  settings, scores, _, _ = measured
  source = settings.open(data_dir)
  net, weights = eval_nets["settings"]["face"], eval_nets["nets"]["face"]
  # As the editor finds them, in float32.
  points = np.float32(STANDARD[:, :2] * (1, -1) / 20 + 0.5)
  points = points.astype(np.float64) * SIDE
  read = jax.jit(net.apply)
  sums = []
  for i in range(PAIRS):
    pair = [
      jnp.asarray(
        transforms.to_float(deep3d.crop(source[i][name], points, STANDARD))
      )[None]
      for name in ("image", "pair_image")
    ]
    a, b = (np.asarray(read(weights, x))[0] for x in pair)
    gap = np.abs(a - b)
    sums.append([gap[224:227].mean(), gap[80:144].mean(), gap[227:254].mean()])
  wanted = np.mean(sums, axis=0)
  for name, value in zip(("APD", "AED", "ALD"), wanted, strict=True):
    assert scores[f"copy_source/{name}"] == pytest.approx(value, rel=1e-3)


def test_fid_is_the_one_of_the_pictures(measured, eval_nets, data_dir):
  settings, scores, out, _ = measured
  source = settings.open(data_dir)
  read = fid.Reader(settings.inception, eval_nets["nets"]["inception"], batch=2)
  sets = [
    read.empty().add(read(np.stack([source[i][n] for i in range(PAIRS)])))
    for n in ("image", "pair_image")
  ]
  assert scores["copy_source/FID"] == pytest.approx(fid.fid(*sets), rel=1e-3)
  kept = fid.load(out / "fid_reference.npz")
  assert kept.count == PAIRS
  np.testing.assert_allclose(kept.mean, sets[1].mean, rtol=1e-4, atol=1e-7)


def test_pairs_show_one_person_twice(data_dir):
  settings = evaluator(pair_seed=4)
  source = settings.open(data_dir)
  for i in range(PAIRS):
    pair = source[i]
    assert pair["identity"] == pair["pair_identity"]
    assert pair["frame"] != pair["pair_frame"]
  again, other = settings.open(data_dir), evaluator(pair_seed=5).open(data_dir)
  same = [np.array_equal(source[i]["image"], again[i]["image"]) for i in (0, 3)]
  assert all(same)
  assert any(
    not np.array_equal(source[i]["image"], other[i]["image"]) for i in range(9)
  )


def test_pairs_may_show_two_people(data_dir, tmp_path):
  settings = evaluator(people="other", pairs=7)
  source = settings.open(data_dir)
  pairs = [source[i] for i in range(12)]
  assert all(p["identity"] != p["pair_identity"] for p in pairs)
  assert {int(p["identity"]) for p in pairs} == set(range(PEOPLE))
  again = settings.open(data_dir)[7]
  np.testing.assert_array_equal(pairs[7]["pair_image"], again["pair_image"])
  nets = {"estimator": 0.5, "identity": jnp.ones(3)}
  scores = settings.run(
    evaluators.EvalContext(
      Editor(), {}, {}, data_dir, tmp_path, lambda text: None, nets
    )
  )
  assert scores["count/pairs"] == 7
  text = (tmp_path / "table.txt").read_text(encoding="utf-8")
  assert "source and query show two people" in text.splitlines()[0]


def row(text, label):
  """The values of a line of the table by column."""
  lines = text.splitlines()
  (line,) = [x for x in lines if x.startswith(label)]
  names = [name.strip("↑↓") for name in lines[1].split()]
  return dict(zip(names, line[len(label) :].split(), strict=True))


def test_the_table_shows_our_rows_beside_the_papers(measured):
  settings, scores, out, said = measured
  text = (out / "table.txt").read_text(encoding="utf-8")
  assert said[-1] == "\n" + text.rstrip("\n")
  assert said[:2] == ["4/5 pairs", "5/5 pairs"]
  title, head = text.splitlines()[:2]
  assert title.startswith("5 pairs of split 'test' (seed 0)")
  assert "one person" in title
  assert head.split() == ["FID↓", "APD↓", "AED↓", "ALD↓", "CSIM↑"]
  ours = row(text, "measured here: edit")
  assert ours["AED"] == "0.0000" and ours["FID"] == "0.00"
  assert ours["CSIM"] == f"{scores['edit/CSIM']:.4f}"
  assert row(text, "paper, Table 1: DiffFAE ") == dict(
    FID="31.83", APD="0.0191", AED="0.1532", ALD="0.1511", CSIM="0.9458"
  )
  assert row(text, "paper, Table 1: Hou et al.")["APD"] == "-"
  assert row(text, "paper, Table 3: DiffFAE, no identity token") == dict(
    FID="-", APD="-", AED="-", ALD="-", CSIM="0.9309"
  )
  for said_below in (
    "FID: pytorch-fid (bilinear to 299 without antialiasing), 5 pictures "
    "against 5; fewer than the 128 features need: a high value; true pictures: "
    "the queries of the pairs",
    "APD, AED, ALD: coefficients of Deep3DFaceRecon; edit against query",
    "  ALD: mean |difference| of 27 light coefficients (inferred",
    "CSIM: cosine of the embeddings of edit and source by the identity net of",
  ):
    assert said_below in text, said_below
  assert "no file" not in text
  whole = json.loads((out / "table.json").read_text(encoding="utf-8"))
  assert whole["scores"] == scores
  theirs = whole["published, not measured here"]
  assert all(name.startswith("paper, Table") for name in theirs)
  assert theirs["paper, Table 1: DPE"]["FID"] == 36.67
  assert (out / "edits.png").stat().st_size > 100


def test_without_files_the_columns_bear_other_names(data_dir, tmp_path):
  settings = evaluator(image_size=SIDE)
  nets = {"estimator": 0.5, "identity": jnp.ones(3)}
  said = []
  scores = settings.run(
    evaluators.EvalContext(
      Editor("darker"),
      {},
      {},
      data_dir,
      tmp_path,
      said.append,
      nets,
      quick=True,
    )
  )
  source = settings.open(data_dir)
  found = []
  for i in range(PAIRS):
    made, true = (
      transforms.to_float(source[i][n])[None] for n in ("image", "pair_image")
    )
    codes = [
      Reader().codes(nets, jnp.asarray(x)) for x in (0.8 * made - 0.2, true)
    ]
    apart = distances.code_distances(*codes)
    found.append([float(apart[name][0]) for name in ("APD", "AED", "ALD")])
  wanted = np.mean(found, axis=0)
  for name, value in zip(("APD", "AED", "ALD"), wanted, strict=True):
    assert scores[f"edit/{name}-own"] == pytest.approx(value, rel=1e-4)
  assert set(scores) == {"count/pairs"} | {
    f"{method}/{name}-own"
    for method in ("edit", "copy_source")
    for name in ("APD", "AED", "ALD", "CSIM")
  }
  text = (tmp_path / "table.txt").read_text(encoding="utf-8")
  ours = row(text, "measured here: edit")
  assert [ours[n] for n in reenactment_table.PUBLISHED] == ["-"] * 5
  assert ours["AED-own"] == f"{scores['edit/AED-own']:.4f}"
  assert row(text, "paper, Table 1: DPE")["AED-own"] == "-"
  heads = text.splitlines()[1].split()[5:]
  assert heads == ["APD-own↓", "AED-own↓", "ALD-own↓", "CSIM-own↑"]
  for net, what in (
    ("inception", "convert inception pt_inception-2015-12-05-6726825d.pth"),
    ("face", "convert deep3d epoch_20.pth --output=face.safetensors"),
    ("identity", "convert arcface backbone.pth"),
  ):
    (line,) = [x for x in text.splitlines() if what in x]
    assert f"{WHERE}.weights.{net}" in line and ": -, no file" in line
  assert "codes of the estimator of stage eval_estimator" in text
  assert "the jaw's 3 angles" in text
  assert not (tmp_path / "fid_reference.npz").exists()


def test_before_the_nets_are_trained_nothing_is_measured(data_dir, tmp_path):
  settings = evaluator(weights={"inception": "x.safetensors"})
  scores = settings.run(
    evaluators.EvalContext(
      Editor(), {}, {}, data_dir, tmp_path, lambda text: None, None, quick=True
    )
  )
  assert scores == {"count/pairs": PAIRS}
  text = (tmp_path / "table.txt").read_text(encoding="utf-8")
  assert "FID: -, the evaluation nets are not trained yet" in text
  assert set(row(text, "measured here: edit").values()) == {"-"}


def test_the_nets_of_the_edit_may_read_it(data_dir, tmp_path):
  settings = evaluator(
    readers="frozen", estimator_name="DECA", identity_name=""
  )
  assert settings.eval_nets() == {}
  frozen = {"estimator": 1.0, "identity": jnp.ones(3), "other": 0}
  scores = settings.run(
    evaluators.EvalContext(
      Editor(), {}, frozen, data_dir, tmp_path, lambda text: None, {}
    )
  )
  assert scores["edit/AED-DECA"] == 0 < scores["copy_source/AED-DECA"]
  assert "edit/CSIM" in scores
  text = (tmp_path / "table.txt").read_text(encoding="utf-8")
  assert text.count("that conditions the edit (which flatters it)") == 2


def test_a_saved_reference_replaces_the_queries(measured, eval_nets, data_dir):
  _, scores, out, _ = measured
  settings = evaluator(
    weights={"inception": "a"},
    readers="frozen",
    fid_reference=str(out / "fid_reference.npz"),
    **eval_nets["settings"],
  )
  again = settings.run(
    evaluators.EvalContext(
      Editor(),
      {},
      {},
      data_dir,
      out / "again",
      lambda text: None,
      {"inception": eval_nets["nets"]["inception"]},
    )
  )
  assert again["copy_source/FID"] == pytest.approx(
    scores["copy_source/FID"], rel=1e-6
  )
  assert not (out / "again" / "fid_reference.npz").exists()
  text = (out / "again" / "table.txt").read_text(encoding="utf-8")
  assert f"true pictures: {settings.fid_reference}" in text
  lacking = dataclasses.replace(settings, fid_reference="absent.npz")
  with pytest.raises(ValueError, match="absent.npz cannot be read"):
    lacking.run(
      evaluators.EvalContext(
        Editor(), {}, {}, data_dir, out, print, eval_nets["nets"]
      )
    )


def test_faces_without_points_are_left_out(eval_nets, data_dir, tmp_path):
  """Of every batch the first picture's points lie in one place."""

  class Lost(Editor):
    def find_points(self, variables, frozen, image):
      points, face = super().find_points(variables, frozen, image)
      return points.at[0].set(0.5), face

  settings = evaluator(weights={"face": "b"}, **eval_nets["settings"])
  nets = {"face": eval_nets["nets"]["face"], "identity": jnp.ones(3)}
  scores = settings.run(
    evaluators.EvalContext(
      Lost("darker"), {}, {}, data_dir, tmp_path, lambda text: None, nets
    )
  )
  # Edits, sources and queries of two batches.
  assert scores["count/pictures_without_points"] == 6
  assert np.isfinite(scores["edit/AED"])
  text = (tmp_path / "table.txt").read_text(encoding="utf-8")
  assert "left out: 6 pictures whose five points are no face's" in text


def test_nets_come_from_files(tmp_path, rng):
  """`eval_nets` names files, and they are loaded and checked."""
  net = IResNet((1, 1, 1, 1), (2, 2, 2, 2), 2, 4)
  reader = face_reader.FaceReader(None, identity=net, identity_size=16)
  variables = randomised(net, rng, array(1, 16, 16, 3))
  flat = flax.traverse_util.flatten_dict(variables, sep="/")
  path = tmp_path / "arcface.safetensors"
  convert.write({k: np.asarray(v) for k, v in flat.items()}, path, {})
  settings = evaluator(
    reader=reader, readers="frozen", weights={"identity": str(path)}
  )
  stage = types.SimpleNamespace(workdir=tmp_path)
  loaded = evaluate.load_eval_nets(settings, stage)
  assert set(loaded) == {"identity"}
  np.testing.assert_array_equal(
    loaded["identity"]["params"]["fc"]["kernel"], flat["params/fc/kernel"]
  )
  absent = dataclasses.replace(
    settings,
    weights=reenactment.Files(face=str(tmp_path / "deep3d.safetensors")),
  )
  with pytest.raises(CheckpointError, match="deep3d.safetensors"):
    evaluate.load_eval_nets(absent, stage)
  stages = dataclasses.replace(
    settings, readers="stages", weights=reenactment.Files(face="x")
  )
  assert {n: (s.path, s.stage) for n, s in stages.eval_nets().items()} == {
    "face": ("x", ""),
    "identity": ("", "eval_identity"),
  }
