"""Names the parts that a trained stage has found unaided: `--mode=name_slots`.

checkpoint -> masks of held-out pictures -> labelled sheet, names beside the run
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from faceedit_jax import evaluators, stages
from faceedit_jax.core import checkpoint, files, partial_restore
from faceedit_jax.core.errors import UserError, as_user_error

KIND = "slot_naming"


def run(
  config: Mapping[str, Any],
  workdir: str | pathlib.Path,
  stage: str | None = None,
  data_dir: str | pathlib.Path | None = None,
  names: Sequence[str] = (),
) -> None:
  """Writes `<stage>/slots/slots.png`, and names what the sheet shows.

  Args:
    config: the whole config.
    workdir: directory of all stages.
    stage: which; by default the last one that is trained and has slots.
    data_dir: directory of prepared data; `config.data_dir` when None.
    names: of the slots, in their order, where somebody has looked at the sheet;
      by default labelled pictures name them.

  Raises:
    UserError: one line.
  """
  built = _stage(config, workdir, stage, data_dir)
  stages.check_trained(built)
  setup = evaluators.Setup(
    recipe=built.recipe,
    nets=config["nets"],
    data=built.options.data,
    image_size=stages.size_of(config, built.name),
    dtype=built.run.compute_dtype,
    where="--mode=name_slots",
  )
  section = {"kind": KIND, "names": tuple(names)}
  evaluator = evaluators.build(section, setup)
  place = partial_restore.place_on(
    jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  )
  out = built.directory / "slots"
  files.check_writable(out)
  ctx = evaluators.EvalContext(
    recipe=built.recipe,
    variables=partial_restore.load_view(built.recipe, built.checkpoints, place),
    frozen={},
    data_dir=pathlib.Path(built.data_dir),
    out_dir=out,
    log=lambda text: print(f"{built.name}: {text}", flush=True),
    stage_dir=built.directory,
  )
  with as_user_error("--mode=name_slots"):
    evaluator.run(ctx)
  print(f"{built.name}: sheet and table in {out}", flush=True)


def _stage(config, workdir, stage, data_dir) -> stages.Stage:
  """The stage whose slots are named."""
  chosen = stages.pick_stages(config, stage)
  made = [
    stages.make_stage(config, name, workdir, data_dir)
    for name in reversed(chosen)
  ]
  able = [s for s in made if hasattr(s.recipe, "slot_masks")]
  if not able:
    raise UserError(
      f"--mode=name_slots: none of the stages {chosen} has slots to name "
      "(--stage, --config)"
    )
  trained = [s for s in able if checkpoint.steps_in(s.checkpoints)]
  return (trained or able)[0]
