"""The four parts of a data section: what fits, and what is refused how."""

import numpy as np
import pytest

from data_pipelines import records, samplers, sources, transforms
from faceedit_jax import input_pipeline, stages
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import UserError
from tests import toy_config

WHERE = "config.stage.gan.data"


def section(**parts):
  made = {
    "source": {"kind": "array_record", "folder": "x"},
    "loader": {"batch_size": 4},
  }
  return {**made, **parts}


def test_every_part_is_typed():
  made = input_pipeline.build_data(
    section(
      source={"kind": "image_folder", "holdout": 0},
      sampler={"kind": "domains", "attributes": ["Smiling"], "references": 2},
      transforms={"flip": 0.5, "resized_crop": {"scale": [0.5, 1]}},
      loader={"batch_size": 4, "num_threads": 0},
    ),
    WHERE,
    32,
  )
  assert made.source == sources.ImageFolder(size=32, holdout=0.0)
  assert made.sampler == samplers.Domains(("Smiling",), 2)
  assert made.transforms == transforms.Options(
    flip=0.5, resized_crop=transforms.ResizedCrop(scale=(0.5, 1.0))
  )
  assert (made.loader.batch_size, made.loader.num_threads) == (4, 0)


def test_a_recipes_attributes_are_its_samplers(tmp_path):
  """They are said once; an override reaches both."""
  config = config_lib.load("configs/l2m_gan.py:smoke")
  config = config_lib.override(
    config, ["stage.gan.recipe.attributes=[Smiling,Bangs]"]
  )
  made = stages.make_stage(config, "gan", tmp_path)
  assert made.data.sampler.attributes == ("Smiling", "Bangs")
  assert made.recipe.attributes == ("Smiling", "Bangs")
  own = section(sampler={"kind": "domains", "attributes": ["Young"]})
  made = input_pipeline.build_data(own, WHERE, 32, ("Smiling",))
  assert made.sampler.attributes == ("Young",)


@pytest.mark.parametrize(
  "data, message",
  [
    ({"sauce": {}}, r"has no key 'sauce'; did you mean 'source'\?"),
    ({"source": {"kind": "x"}}, "data.source.kind is 'x'"),
    (
      {"source": {"kind": "array_record", "foldr": "x"}},
      r"data.source has no key 'foldr'; did you mean 'folder'\?",
    ),
  ],
)
def test_an_evaluators_data_is_checked_when_the_stage_is_built(
  data, message, tmp_path
):
  config = config_lib.load("configs/l2m_gan.py:smoke").to_dict()
  config["stage"]["gan"]["evaluators"]["attributes"]["data"] = data
  with pytest.raises(UserError, match=message) as caught:
    stages.make_stage(config_lib.from_dict(config), "gan", tmp_path)
  assert "\n" not in str(caught.value)


def test_what_is_left_out():
  made = input_pipeline.build_data(section(), WHERE, 32)
  assert made.source == sources.ArrayRecord("x")
  assert made.sampler == samplers.Single()
  assert made.transforms == transforms.Options()
  own = section(source={"kind": "online", "size": 16})
  assert input_pipeline.build_data(own, WHERE, 32).source.size == 16


@pytest.mark.parametrize(
  "parts, message",
  [
    ({"samplers": {}}, r"data has no key 'samplers'; did you mean 'sampler'\?"),
    ({"batch_size": 8}, "data has no key 'batch_size'; it has loader, sampler"),
    ({"source": "online"}, r"data.source is 'online', wanted a section"),
    ({"source": {"folder": "x"}}, "data.source lacks the key 'kind'; it has"),
    (
      {"source": {"kind": "image_foldr", "size": 8}},
      r"data.source.kind is 'image_foldr', .* did you mean 'image_folder'\?",
    ),
    (
      {"source": {"kind": "array_record", "foldr": "x"}},
      r"data.source has no key 'foldr'; did you mean 'folder'\?",
    ),
    (
      {"source": {"kind": "synthetic_heads", "eval_pair": 3}},
      r"data.source has no key 'eval_pair'; did you mean 'eval_pairs'\?",
    ),
    (
      {"sampler": {"kind": "pair"}},
      r"data.sampler.kind is 'pair', .* did you mean 'pairs'\?",
    ),
    (
      {"sampler": {"kind": "pairs", "withn": "video"}},
      r"data.sampler has no key 'withn'; did you mean 'within'\?",
    ),
    (
      {"sampler": {"kind": "pairs", "within": "clip"}},
      "data.sampler.within is 'clip', wanted 'video' or 'identity' or None",
    ),
    (
      {"sampler": {"kind": "single", "seed": 3}},
      "data.sampler has no key 'seed'; it has none",
    ),
    (
      {"transforms": {"flipp": 0.5}},
      r"data.transforms has no key 'flipp'; did you mean 'flip'\?",
    ),
    (
      {"transforms": {"photometric": {"nois": 3}}},
      r"transforms.photometric has no key 'nois'; did you mean 'noise'\?",
    ),
    (
      {"transforms": {"flip": "often"}},
      "data.transforms.flip is 'often', wanted",
    ),
    (
      {"loader": {"batch_size": 4, "num_thread": 3}},
      r"data.loader has no key 'num_thread'; did you mean 'num_threads'\?",
    ),
    ({"loader": {"batch_size": "8"}}, "batch_size is '8', wanted a whole"),
    ({"loader": {}}, "data.loader lacks the key 'batch_size'"),
    ({"loader": {"batch_size": 4, "limit": -1}}, "limit -1, wanted 0"),
  ],
)
def test_what_does_not_fit_is_one_line(parts, message):
  with pytest.raises(UserError, match=message) as caught:
    input_pipeline.build_data(section(**parts), WHERE, 32)
  assert "\n" not in str(caught.value)
  assert str(caught.value).startswith(WHERE)


@pytest.mark.parametrize(
  "key, message",
  [
    ("source.foldr", "source.folder"),
    ("sampler.knd", "sampler.kind"),
    ("loader.batch_siz", "loader.batch_size"),
    ("transform.flip", "transforms.flip"),
  ],
)
def test_a_misspelt_override_is_one_line(key, message):
  config = toy_config.get_config("gan")
  config.stage.gan.data.transforms = {"flip": 0.5}
  with pytest.raises(UserError, match="Did you mean") as caught:
    config_lib.override(config, [f"stage.gan.data.{key}=1"])
  assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_stage_refuses_what_its_config_file_misspells(tmp_path):
  config = config_lib.from_dict(toy_config.get_config("gan"))
  section = config.to_dict()
  section["stage"]["gan"]["data"]["loader"]["num_thread"] = 2
  with pytest.raises(
    UserError, match="gan.data.loader has no key 'num_thread'"
  ):
    stages.make_stage(config_lib.from_dict(section), "gan", tmp_path)


def test_the_limit_comes_before_the_sampler(tmp_path):
  records.write_records(
    tmp_path / "x" / "train",
    [
      {"image": np.zeros((4, 4, 3), np.uint8), "identity": np.int32(i // 2)}
      for i in range(10)
    ],
  )
  data = input_pipeline.build_data(
    section(sampler={"kind": "balanced"}, loader={"batch_size": 2, "limit": 6}),
    WHERE,
  )
  source = input_pipeline.open_data(data, tmp_path, 0)
  assert sorted(int(source[i]["identity"]) for i in range(6)) == [
    0,
    0,
    1,
    1,
    2,
    2,
  ]
  more = section(loader={"batch_size": 2, "limit": 11})
  data = input_pipeline.build_data(more, WHERE)
  with pytest.raises(UserError, match="11 examples of a source of 10; change"):
    input_pipeline.open_data(data, tmp_path, 0)
