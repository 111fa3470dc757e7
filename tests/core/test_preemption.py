"""A request to stop: noticed, acted on at once where asked, and let go of."""

import os
import signal
import threading
import time

import pytest

from faceedit_jax.core.preemption import StopRequest


def ask():
  os.kill(os.getpid(), signal.SIGTERM)


def test_a_request_is_noticed_and_the_old_handler_put_back():
  old = signal.getsignal(signal.SIGTERM)
  with StopRequest() as stop:
    assert not stop.asked and not stop.reached(1)
    ask()
    assert stop.asked and stop.reached(2)
  assert signal.getsignal(signal.SIGTERM) is old


def test_a_block_that_has_nothing_to_save_ends_at_once():
  began = time.monotonic()
  with StopRequest() as stop:
    with stop.at_once():
      ask()
      time.sleep(30)
    assert stop.asked
    ask()  # outside the block it is only noted
  assert time.monotonic() - began < 20


def test_errors_of_a_block_are_not_swallowed():
  with StopRequest() as stop:
    with pytest.raises(KeyError), stop.at_once():
      raise KeyError("other")
    ask()
    assert stop.asked


def test_other_threads_leave_the_handler_alone():
  old = signal.getsignal(signal.SIGTERM)
  seen = []

  def run():
    with StopRequest() as stop:
      seen.append((stop.asked, signal.getsignal(signal.SIGTERM)))

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert seen == [(False, old)]
