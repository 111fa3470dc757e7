"""A stage of no steps hands its nets on as they started."""

import functools

import jax
import numpy as np

from data_pipelines import records
from faceedit_jax import stages, train
from faceedit_jax.core import checkpoint, partial_restore
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import step as step_lib
from tests import toy_config


def test_a_stage_of_no_steps_hands_on_what_it_started_from(tmp_path, rng):
  records.write_records(
    tmp_path / "data" / "toy" / "train",
    (
      {
        "image": rng.integers(0, 256, (8, 8, 3), dtype=np.uint8),
        "identity": np.int32(i // 4),
        "frame": np.int32(i % 4),
      }
      for i in range(8)
    ),
  )
  config = config_lib.override(
    config_lib.from_dict(toy_config.get_config("latent")),
    ["stage.ae.steps=0", "stage.head.steps=1"],
  )
  work = tmp_path / "work"
  # It needs no data: `annotate` reads with such nets before there are any.
  assert train.run(config, work, stage="ae", data_dir=tmp_path / "none")
  assert train.run(config, work, data_dir=tmp_path / "data")
  first = stages.make_stage(config, "ae", work)
  assert checkpoint.steps_in(first.checkpoints) == [0]
  assert stages.finished_step(first) == 0
  place = partial_restore.place_on(
    jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  )
  found = partial_restore.load_view(
    first.recipe, first.checkpoints, place, ema=""
  )
  start = step_lib.init_state(first.recipe, jax.random.key(first.seed))
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
  for net, tree in start.params.items():
    jax.tree.map(close, found[net]["params"], tree)
  # Nothing is trained when the same command is given again.
  before = checkpoint.read_record(work / "head" / "checkpoints").meta
  assert train.run(config, work, data_dir=tmp_path / "data")
  assert checkpoint.read_record(work / "head" / "checkpoints").meta == before
  assert before["sources"] == {"ae": 0}
