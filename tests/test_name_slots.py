"""`--mode=name_slots`: a sheet, names beside the run, edits that read them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import records
from faceedit_jax import load_trained, main, name_slots, stages
from faceedit_jax.core import checkpoint, inference_record
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.errors import UserError
from tests import toy_config, toy_recipes
from tests.test_main import run_main
from tests.toy_runs import config_of

NAMES = ("background", "face", "clothes", "hair")


@dataclasses.dataclass(frozen=True)
class SlottedOptions:
  slot_names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Slotted(toy_recipes.ToyGan):
  """Four slots, a quarter of the picture each."""

  names: tuple[str, ...] = ()

  Options = SlottedOptions
  inference_options = ("slot_names",)

  @classmethod
  def from_config(cls, nets, options, image_size, dtype):
    del nets, dtype
    return cls(size=image_size, names=options.slot_names)

  def slot_masks(self, variables, image):
    assert set(variables) == {"gen", "disc"}
    quarter = 2 * (jnp.arange(4)[:, None] >= 2) + (jnp.arange(4) >= 2)
    masks = jax.nn.one_hot(quarter, 4)
    return jnp.broadcast_to(masks, (len(image), 4, 4, 4))


def slotted_config():
  config = toy_config.get_config("gan")
  config.stage["gan"]["recipe"] = {"name": f"{__name__}:Slotted"}
  config.stage["gan"]["recipe"]["slot_names"] = ()
  return config_lib.from_dict(config)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A trained stage and its data, whose regions name the quarters."""
  folder = tmp_path_factory.mktemp("run")
  at = [("face", "hair", "clothes", "background").index(n) for n in NAMES]
  regions = np.repeat(np.repeat(np.reshape(at, (2, 2)), 4, 0), 4, 1)
  draw = np.random.default_rng(0)
  records.write_records(
    folder / "toy" / "test",
    (
      {
        "image": draw.integers(0, 256, (8, 8, 3), dtype=np.uint8),
        "regions": regions.astype(np.uint8),
      }
      for _ in range(3)
    ),
  )
  stage = stages.make_stage(slotted_config(), "gan", folder)
  init = jax.jit(lambda key: step_lib.init_state(stage.recipe, key))
  store = checkpoint.Checkpoints(stage.checkpoints)
  store.save(
    init(jax.random.key(0)), checkpoint.Record(2, {}, stage.identity, {})
  )
  store.close()
  return folder


def test_names_are_kept_and_read(run, capsys):
  config = slotted_config()
  assert stages.make_stage(config, "gan", run).recipe.names == ()
  name_slots.run(config, run, data_dir=run)
  said = capsys.readouterr().out
  assert "slots named by the regions of 3 pictures" in said
  assert (run / "gan" / "slots" / "slots.png").stat().st_size > 100
  kept = json.loads((run / "gan" / inference_record.NAME).read_text())
  assert tuple(kept["slot_names"]["value"]) == NAMES
  # Whoever uses the stage finds them, with its config or without.
  assert stages.make_stage(config, "gan", run).recipe.names == NAMES
  assert load_trained.load(run).recipe.names == NAMES
  # By hand, over what labels said.
  other = ("face", "hair", "clothes", "background")
  name_slots.run(config, run, data_dir=run, names=other)
  assert load_trained.load(run).recipe.names == other


def test_stages_without_slots_are_one_line(tmp_path):
  with pytest.raises(UserError, match="none of the stages .*has slots"):
    name_slots.run(config_of("gan"), tmp_path)


def test_an_untrained_stage_is_one_line(tmp_path):
  with pytest.raises(UserError, match="no checkpoint"):
    name_slots.run(slotted_config(), tmp_path)


def test_the_command_line_hands_the_names_over(tmp_path, root, monkeypatch):
  monkeypatch.chdir(root)
  seen = []
  monkeypatch.setattr(name_slots, "run", lambda *a: seen.append(a))
  main.flags.FLAGS["slot_names"].value = list(NAMES)
  try:
    assert run_main(tmp_path, "name_slots") == 0
    with pytest.raises(UserError, match="--slot_names needs --mode=name_slots"):
      run_main(tmp_path, "evaluate")
  finally:
    main.flags.FLAGS["slot_names"].value = []
  (arguments,) = seen
  assert arguments[1:] == (str(tmp_path), None, str(tmp_path), list(NAMES))
