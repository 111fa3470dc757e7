"""Stopping between two steps when the system asks for it (SIGTERM)."""

import contextlib
import signal
import threading

import jax
from absl import logging
from jax.experimental import multihost_utils


class _Stopped(Exception):
  """SIGTERM came while nothing was left to save."""


class StopRequest:
  """A request to stop (SIGTERM), agreed upon by all processes.

  Held over all stages of a run, so that no moment is without it.
  """

  def __init__(self):
    self._asked = threading.Event()
    self._old = None
    self._raises = False

  @property
  def asked(self) -> bool:
    """Whether this process was asked to stop."""
    return self._asked.is_set()

  def __enter__(self):
    # With several processes JAX's own service watches for the signal and
    # agrees on the step to stop at.
    alone = jax.process_count() == 1
    if alone and threading.current_thread() is threading.main_thread():
      self._old = signal.signal(signal.SIGTERM, self._ask)
    return self

  def __exit__(self, *error):
    if self._old is not None:
      signal.signal(signal.SIGTERM, self._old)

  def _ask(self, *_):
    self._asked.set()
    if self._raises:
      raise _Stopped

  @contextlib.contextmanager
  def at_once(self):
    """A request inside ends the block: an evaluation has nothing to save."""
    self._raises = True
    try:
      yield
    except _Stopped:
      pass
    finally:
      self._raises = False

  def reached(self, step: int) -> bool:
    """Whether to save and stop after this step."""
    if jax.process_count() > 1:
      try:
        return multihost_utils.reached_preemption_sync_point(step)
      except RuntimeError as e:
        logging.log_first_n(logging.WARNING, "no preemption service: %s", 1, e)
        return False
    return self._asked.is_set()
