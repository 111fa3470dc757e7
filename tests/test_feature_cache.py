"""Features of frozen nets: right, kept, taken up again, renewed when stale."""

import dataclasses
import errno
import json
import pathlib

import jax
import numpy as np
import pytest

from data_pipelines import records, samplers, transforms
from faceedit_jax import feature_cache, input_pipeline, stages, train
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.errors import UserError, WorkdirError
from tests import toy_config

COUNT = 70  # two whole batches and a part


def write(path, seed):
  """70 random pictures of 35 people."""
  draw = np.random.default_rng(seed)
  records.write_records(
    path / "toy" / "train",
    (
      {
        "image": draw.integers(0, 256, (8, 8, 3), dtype=np.uint8),
        "identity": np.int32(i // 2),
        "frame": np.int32(i % 2),
      }
      for i in range(COUNT)
    ),
  )
  return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return write(tmp_path_factory.mktemp("data"), 0)


def config_of(**changes):
  config = config_lib.from_dict(toy_config.get_config("latent"))
  changes = {"stage__head__recipe__cache_features": True} | changes
  changes = [f"{k.replace('__', '.')}={v}" for k, v in changes.items()]
  return config_lib.override(config, changes)


def stage_of(workdir, data, **changes):
  return stages.make_stage(config_of(**changes), "head", workdir, data)


def frozen_of(stage, seed=0):
  return stage.recipe.init_frozen(jax.random.key(seed))


def read_all(stage, frozen):
  """The features of every picture, one by one."""
  source = input_pipeline.open_data(stage.data, stage.data_dir, 0)
  images = np.stack([source[i]["image"] for i in range(len(source))])
  images = images.astype(np.float32) / 127.5 - 1
  return np.asarray(stage.recipe.compute_features(frozen, images)["latent"])


def test_every_picture_is_read(tmp_path, data):
  stage = stage_of(tmp_path, data)
  frozen = frozen_of(stage)
  assert feature_cache.prepare(stage, frozen, "head", lambda: False)
  found = feature_cache.load(stage)
  assert found["latent"].shape == (COUNT, 4, 4, 4)
  wanted = read_all(stage, frozen)
  np.testing.assert_allclose(found["latent"], wanted, atol=1e-6)
  paired = dataclasses.replace(stage.data, sampler=samplers.Pairs())
  source = input_pipeline.open_data(paired, data, 0, found)
  plain = input_pipeline.open_data(stage.data, data, 0)
  number = {plain[i]["image"].tobytes(): i for i in range(COUNT)}
  for i in range(5):
    example = source[i]
    for whose in ("source", "query"):
      row = number[example[f"{whose}_image"].tobytes()]
      np.testing.assert_allclose(
        example[f"{whose}_latent"], wanted[row], atol=1e-6
      )


def test_a_stopped_computation_goes_on(tmp_path, data, monkeypatch):
  stage = stage_of(tmp_path, data)
  frozen = frozen_of(stage)
  asked = iter([False, True])
  assert not feature_cache.prepare(stage, frozen, "head", lambda: next(asked))
  file = stage.directory / "feature_cache" / "latent.npy"
  half = file.stat().st_size
  # A kill in the middle of a write leaves a part of a picture.
  with file.open("ab") as out:
    out.write(b"part")
  calls = []
  read = type(stage.recipe).compute_features

  def counted(self, frozen, image):
    jax.debug.callback(lambda: calls.append(1))
    return read(self, frozen, image)

  monkeypatch.setattr(type(stage.recipe), "compute_features", counted)
  assert feature_cache.prepare(stage, frozen, "head", lambda: False)
  jax.effects_barrier()
  assert len(calls) == 2  # of three batches
  assert file.stat().st_size > half
  np.testing.assert_allclose(
    feature_cache.load(stage)["latent"], read_all(stage, frozen), atol=1e-6
  )


def test_other_nets_are_read_anew(tmp_path, data):
  stage = stage_of(tmp_path, data)
  for seed in (0, 1):
    frozen = frozen_of(stage, seed)
    assert feature_cache.prepare(stage, frozen, "head", lambda: False)
    found = np.array(feature_cache.load(stage)["latent"])
    np.testing.assert_allclose(found, read_all(stage, frozen), atol=1e-6)
  # Nothing to do: no picture is read.
  assert feature_cache.prepare(stage, frozen, "head", lambda: 1 / 0)


def test_other_pictures_are_read_anew(tmp_path, data):
  stage = stage_of(tmp_path, data)
  frozen = frozen_of(stage)
  assert feature_cache.prepare(stage, frozen, "head", lambda: False)
  before = np.array(feature_cache.load(stage)["latent"])
  other = stage_of(tmp_path, write(tmp_path / "other", 1))
  assert feature_cache.prepare(other, frozen, "head", lambda: False)
  found = np.array(feature_cache.load(other)["latent"])
  np.testing.assert_allclose(found, read_all(other, frozen), atol=1e-6)
  assert np.abs(found - before).max() > 0.1


def test_a_training_on_cached_features_is_the_training_without(tmp_path, data):
  losses = {}
  for once in (True, False):
    config = config_of(stage__head__recipe__cache_features=once)
    workdir = tmp_path / str(once)
    assert train.run(config, workdir, data_dir=data)
    lines = (workdir / "head" / "metrics.jsonl").read_text().splitlines()
    losses[once] = [json.loads(line) for line in lines]
  assert len(losses[True]) == len(losses[False]) > 2
  for one, other in zip(losses[True], losses[False], strict=True):
    assert one["denoise/loss"] == pytest.approx(other["denoise/loss"], rel=1e-5)


def test_pictures_that_change_are_refused(tmp_path, data):
  stage = stage_of(tmp_path, data)
  jitter = transforms.Options(jitter=transforms.RandomCrop(low=0.9))
  stage.data = dataclasses.replace(stage.data, transforms=jitter)
  with pytest.raises(UserError, match="jitter.*cache_features=False"):
    feature_cache.prepare(stage, frozen_of(stage), "head", lambda: False)


def test_a_full_disk_is_one_line(tmp_path, data, monkeypatch):
  stage = stage_of(tmp_path, data)
  plain = pathlib.Path.open

  def full(self, *args, **kwargs):
    if self.parent.name == "feature_cache":
      raise OSError(errno.ENOSPC, "No space left on device")
    return plain(self, *args, **kwargs)

  monkeypatch.setattr(pathlib.Path, "open", full)
  with pytest.raises(WorkdirError, match=r"feature_cache: No space left"):
    feature_cache.prepare(stage, frozen_of(stage), "head", lambda: False)
