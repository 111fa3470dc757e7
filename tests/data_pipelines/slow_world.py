"""A world whose pictures take minutes; says which process draws them."""

import os
import pathlib
import time

from tests.data_pipelines.fake_world import (  # noqa: F401
  VERSION,
  sample_frame,
  sample_identity,
)


def render_frames(identity, frames, size):
  pathlib.Path(os.environ["SLOW_WORLD_PID"]).write_text(str(os.getpid()))
  time.sleep(300)
  return []
