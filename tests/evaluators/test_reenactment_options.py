"""Options of the reenactment evaluator: the paper's, and those refused."""

import types

import pytest

from faceedit_jax import evaluators
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.evaluators import reenactment
from faceedit_jax.faces import face_reader
from faceedit_jax.metrics import fid

WHERE = "config.stage.denoiser.evaluators.reenactment"
READER = face_reader.FaceReader(None)


def build(reader=READER, **more):
  """Built from the paper's config, but for `more`."""
  config = config_lib.load("configs/difffae.py:voxceleb256")
  stage = config.stage.denoiser.to_dict()
  recipe = types.SimpleNamespace(
    edit=lambda *inputs, steps=1: None,
    find_points=None,
    face=types.SimpleNamespace(reader=reader, code_shapes={}),
  )
  setup = evaluators.Setup(
    recipe, config.nets, stage["data"], 256, "float32", WHERE
  )
  return evaluators.build({**stage["evaluators"]["reenactment"], **more}, setup)


def test_the_papers_variants_are_measured_so():
  config = config_lib.load("configs/difffae.py:voxceleb256")
  assert config.stage.denoiser.evaluate
  made = build()
  assert isinstance(made, reenactment.ReenactmentEvaluator)
  assert (made.split, made.people, made.pairs) == ("test", "same", 5000)
  assert made.data["source"]["folder"] == "voxceleb1" and made.eval_nets() == {}
  assert made.estimator_name == "DECA"


def test_a_published_estimator_has_no_second_one():
  reader = face_reader.FaceReader(None, locator=object())
  assert build(reader).readers == "frozen"
  with pytest.raises(UserError, match="trains no estimator of this kind"):
    build(reader, readers="stages")


def test_nets_that_read_wrinkles_are_left_out():
  reader = face_reader.FaceReader(
    None, detail_encoder=object(), detail_decoder=object()
  )
  made = build(reader).reader
  assert made.detail_encoder is made.detail_decoder is None


@pytest.mark.parametrize(
  "more, message",
  [
    (dict(kind="reinactment"), "kind: no evaluator .*mean 'reenactment'"),
    (dict(kind=None), "kind is None, wanted one of counterfactual, "),
    (dict(people="both"), "people is 'both', wanted 'same' or 'other'"),
    (dict(readers="none"), "readers is 'none', wanted 'stages' or 'frozen'"),
    (dict(fid_rule="clean"), "wanted 'pytorch-fid' or 'clean-fid'"),
    (dict(weights=dict(fid="x")), "weights has no key 'fid'"),
    (dict(weights=dict(face="x")), "standard_points is empty"),
    (dict(pair="x"), "has no key 'pair'; did you mean 'pairs'"),
    (dict(image_size=1), "has no key 'image_size'"),
  ],
)
def test_settings_that_are_none(more, message):
  with pytest.raises(UserError, match=f"^{WHERE}.*{message}"):
    build(**more)


def test_every_rule_of_fid_may_be_chosen():
  for rule in fid.RULES:
    assert build(fid_rule=rule).fid_rule == rule
