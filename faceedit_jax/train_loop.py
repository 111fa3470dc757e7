"""The steps of one stage: metrics, previews and checkpoints on their turn."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils

from faceedit_jax import preview as preview_lib
from faceedit_jax.core import step as step_lib
from faceedit_jax.core.errors import DivergedError

_LOOK_AHEAD = 10_000  # steps; what is first called later is compiled then


class Loop:
  """The steps of one stage; holds the state between them."""

  def __init__(
    self, stage, mesh, state, frozen, batches, step_fn, store, features, ahead
  ):
    self.state, self._features = state, features
    self._stage, self._frozen, self._batches = stage, frozen, batches
    self._mesh, self._step_fn, self._store = mesh, step_fn, store
    self._ahead = ahead
    self._phases = stage.recipe.phases()
    self._recent: dict[str, jax.Array] = {}  # newest value of every metric
    self._preview: preview_lib.Preview | None = None
    self.stopped = False

  def run(self, start, stop, writer, bar, record) -> int:
    """Runs until the last step or a request to stop; returns steps done."""
    options, total = self._stage.options, self._stage.steps
    log_every, preview_every = options.log_every, options.preview_every
    save_every = options.checkpoint_every
    waiting: tuple[int, dict] | None = None
    done = start
    if not total:  # nets of others, handed on as they are
      self._store.save(self.state, record(0))
    for step in range(start, total):
      due = step_lib.due_phases(self._phases, step)
      batch = next(self._batches)
      self._ahead.wait(due)
      self.state, metrics, images = self._step_fn(
        self.state, self._frozen, batch, due=due
      )
      done = step + 1
      if step == start:
        self._compile_ahead(done, total, batch, preview_every)
      # A lazy phase is seldom due at a logged step: its last value is kept.
      self._recent.update(metrics)
      if waiting is not None:  # fetched one step late: the device is busy again
        self._log(*waiting, writer, bar)
        waiting = None
      last = done == total
      if last or (log_every and done % log_every == 0) or step == start:
        waiting = (done, dict(self._recent))
      self.stopped = stopping = stop.reached(done)
      saving = last or stopping or (save_every and done % save_every == 0)
      # A state with a non-finite loss is never saved.
      if saving and waiting is None:
        self._fetch(done, self._recent)
      elif saving:
        self._log(*waiting, writer, bar)
        waiting = None
      if saving:
        if self._batches.position != done:
          raise RuntimeError(
            f"data position {self._batches.position} after {done} steps"
          )
        writer.flush()
        self._store.save(self.state, record(done))
      if preview_every and (last or done % preview_every == 0):
        self._write_preview(done, images, writer)
      bar.update(done)
      if stopping:
        break
    return done

  def _compile_ahead(self, step, last, batch, preview_every) -> None:
    """Begins with what the steps from here on call, first things first."""
    stop = min(last, step + _LOOK_AHEAD)
    wanted = step_lib.due_sets(self._phases, step, stop)
    if preview_every:
      self._preview = preview_lib.Preview(
        self._stage, self._mesh, self._features
      )
      wanted[preview_lib.NAME] = min(
        last, step + preview_every - step % preview_every
      )
    for name in sorted(wanted, key=wanted.get):
      if name == preview_lib.NAME:
        self._preview.compile_ahead(self._ahead, self.state, self._frozen)
      else:
        self._ahead.add(
          name, self._step_fn, self.state, self._frozen, batch, due=name
        )

  def _fetch(self, done: int, metrics: Mapping[str, Any]) -> dict[str, float]:
    values = {k: float(v) for k, v in jax.device_get(metrics).items()}
    try:
      step_lib.finite_check(values, self._phases)
    except FloatingPointError as e:
      self._store.wait()  # the newest one may still be on its way to the disk
      newest = self._store.latest
      kept = "no checkpoint was made yet"
      if newest is not None:
        kept = f"the checkpoint of step {newest} is kept"
      raise DivergedError(
        f"stage {self._stage.name!r}, step {done}: {e}; {kept}"
      ) from e
    return values

  def _log(self, done, metrics, writer, bar) -> None:
    values = self._fetch(done, metrics)
    bar.update(done, values)
    if bar.steps_per_second:
      values["steps_per_second"] = bar.steps_per_second
    writer.write_scalars(done, values)

  def _write_preview(self, done, images, writer) -> None:
    self._ahead.wait(preview_lib.NAME)
    rows = self._preview(self.state, self._frozen)
    writer.write_images(done, rows)
    rows = {k: v for k, v in images.items() if v.ndim == 4}
    if jax.process_count() > 1 and rows:
      rows = multihost_utils.process_allgather(rows, tiled=True)
    writer.write_images(done, rows, "train")
