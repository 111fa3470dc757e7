"""Shows how far a stage is: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO

import tqdm

_LINE_SECONDS = 10.0  # between two plain lines
_SMOOTHING = 0.3  # of the speed; 1 is the last interval alone


def duration(seconds: float) -> str:
  """Formats seconds as 12s, 3m05s or 2h07m."""
  seconds = int(max(seconds, 0.0))
  if seconds < 60:
    return f"{seconds}s"
  if seconds < 3600:
    return f"{seconds // 60}m{seconds % 60:02d}s"
  return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def headline(metrics: Mapping[str, float]) -> str:
  """Picks the losses of the phases: "denoise 0.1234 disc 1.2"."""
  losses = {k: v for k, v in metrics.items() if k.endswith("/loss")}
  return " ".join(f"{k[: -len('/loss')]} {v:.4g}" for k, v in losses.items())


class Progress:
  """Progress of one stage: name, losses, steps per second, time left."""

  def __init__(
    self,
    title: str,
    start: int,
    total: int,
    enabled: bool = True,
    stream: TextIO | None = None,
    clock=time.monotonic,
    unit: str = "step",
  ):
    """Opens the bar.

    Args:
      title: e.g. "denoiser (2/3)".
      start: finished steps.
      total: steps of the stage.
      enabled: False on all processes but the first.
      stream: where to write; standard error by default.
      clock: seconds; replaced in tests.
      unit: what is counted.
    """
    self._title, self._total, self._step = title, total, start
    self._stream = stream or sys.stderr
    self._clock = clock
    self._unit = unit
    self._enabled = enabled
    self._losses = ""
    self._speed = 0.0
    # None until the first fetch: the time before it went into compiling.
    self._mark: tuple[float, int] | None = None
    self._printed = clock()
    self._bar = None
    if enabled and self._stream.isatty():
      self._bar = tqdm.tqdm(
        total=total,
        initial=start,
        desc=title,
        file=self._stream,
        dynamic_ncols=True,
        smoothing=_SMOOTHING,
        unit=unit,
      )

  @property
  def steps_per_second(self) -> float:
    """Smoothed speed; 0 before it is known."""
    return self._speed

  def update(
    self, step: int, metrics: Mapping[str, float] | None = None
  ) -> None:
    """Tells the bar how far the stage is.

    Args:
      step: finished steps.
      metrics: fetched metrics; only the losses of phases are shown.
    """
    if metrics is not None:
      self._losses = headline(metrics)
      self._measure(step)
    moved, self._step = step - self._step, step
    if not self._enabled:
      return
    if self._bar is not None:
      if metrics is not None:
        self._bar.set_postfix_str(self._losses, refresh=False)
      self._bar.update(moved)
    elif self._clock() - self._printed >= _LINE_SECONDS:
      self._line()

  def message(self, text: str) -> None:
    """Prints a line without tearing the bar."""
    if not self._enabled:
      return
    if self._bar is not None:
      self._bar.write(text, file=self._stream)
    else:
      print(text, file=self._stream, flush=True)

  def close(self) -> None:
    """Ends the bar, or prints the last line."""
    if not self._enabled:
      return
    self._enabled = False
    if self._bar is not None:
      self._bar.close()
    else:
      self._line()

  def _measure(self, step):
    # Only where metrics are fetched: elsewhere the host runs ahead of the
    # device, and the speed would be that of handing out work.
    now = self._clock()
    if self._mark is None:
      self._mark = (now, step)
    then, done = self._mark
    if step > done and now > then:
      speed = (step - done) / (now - then)
      old = self._speed or speed
      self._speed = _SMOOTHING * speed + (1 - _SMOOTHING) * old
      self._mark = (now, step)

  def _line(self):
    self._printed = self._clock()
    parts = [f"{self._title}: {self._unit} {self._step}/{self._total}"]
    if self._losses:
      parts.append(self._losses)
    if self._speed:
      left = (self._total - self._step) / self._speed
      parts.append(f"{self._speed:.2f} {self._unit}s/s")
      parts.append(f"{duration(left)} left")
    print(", ".join(parts), file=self._stream, flush=True)
