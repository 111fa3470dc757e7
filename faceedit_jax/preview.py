"""What a training run looks like: pictures of one batch, again and again."""

import jax

from faceedit_jax import input_pipeline as batches_lib
from faceedit_jax.core import partial_restore, sharding
from faceedit_jax.core import rng as rng_lib
from faceedit_jax.core import state as state_lib
from faceedit_jax.core.aot_compile import CompileAhead
from faceedit_jax.core.typing import PyTree
from faceedit_jax.stages import Stage

NAME = "preview"  # among the names of what is compiled ahead


class Preview:
  """A preview of a batch and noise that stay the same for the run."""

  def __init__(
    self,
    stage: Stage,
    mesh: jax.sharding.Mesh,
    features: batches_lib.CachedFeatures,
  ):
    count = stage.options.preview_count
    batch = batches_lib.preview_batch(
      stage.recipe,
      stage.data,
      stage.data_dir,
      stage.seed,
      count,
      features,
    )
    everywhere = sharding.replicated(mesh)
    self._batch = {
      k: jax.make_array_from_process_local_data(everywhere, v)
      for k, v in batch.items()
    }
    ema = partial_restore.main_ema(stage.recipe) or None

    def preview(state, frozen, batch):
      key = rng_lib.key(jax.random.key(stage.seed), 0, "preview")
      variables = state_lib.view(state, ema)
      return dict(stage.recipe.preview(variables, frozen, batch, key))

    self._jitted = jax.jit(preview, out_shardings=everywhere)

  def compile_ahead(
    self, ahead: CompileAhead, state: state_lib.TrainState, frozen: PyTree
  ) -> None:
    """Begins to compile it."""
    ahead.add(NAME, self._jitted, state, frozen, self._batch)

  def __call__(
    self, state: state_lib.TrainState, frozen: PyTree
  ) -> dict[str, jax.Array]:
    """The pictures, {name: (N, H, W, C)}, on this process's first device."""
    rows = self._jitted(state, frozen, self._batch)
    return {k: v.addressable_data(0) for k, v in rows.items()}
