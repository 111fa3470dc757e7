"""Metrics and sheets: what is written, in which order, and what goes wrong."""

import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from faceedit_jax.core import progress, writers
from faceedit_jax.core.errors import WorkdirError


def lines(path):
  return [json.loads(x) for x in (path / "metrics.jsonl").read_text().split("\n") if x]  # fmt: skip # noqa: E501


def test_bytes_of_pictures():
  x = np.array([-2.0, -1.0, 0.0, 1.0, 3.0, np.nan])
  np.testing.assert_array_equal(writers.to_uint8(x), [0, 0, 128, 255, 255, 0])
  u = np.arange(3, dtype=np.uint8)
  assert writers.to_uint8(u) is u


def test_grid_has_a_row_per_name_and_enlarges_small_pictures():
  rows = {
    "a": np.full((3, 4, 4, 3), 1.0),
    "b": np.full((2, 2, 2, 1), 7, np.uint8),
  }
  sheet = writers.make_grid(rows, columns=2, gap=1)
  assert sheet.shape == (1 + 2 * 5, 1 + 2 * 5, 3)
  assert (sheet[1:5, 1:5] == 255).all()
  assert (sheet[6:10, 1:5] == 7).all() and (sheet[6:10, 6:10] == 7).all()
  assert (sheet[5] == 255).all()  # the gap
  with pytest.raises(ValueError, match="'c' has shape"):
    writers.make_grid({"c": np.zeros((4, 4, 3))})
  with pytest.raises(ValueError, match="at least one row"):
    writers.make_grid({})


def test_named_rows_have_their_names_in_a_margin():
  rows = {name: np.full((1, 24, 24, 3), 9, np.uint8) for name in ("a", "long")}
  plain = writers.make_grid(rows)
  named = writers.make_grid(rows, named=True)
  margin = named.shape[1] - plain.shape[1]
  assert margin > 10
  np.testing.assert_array_equal(named[:, margin:], plain)
  ink = (named[:, :margin] < 128).any(-1)
  short, long = ink[: len(ink) // 2], ink[len(ink) // 2 :]
  assert 0 < short.sum() < long.sum()
  assert not ink[:, 0].any() and not ink[:, -1].any()


def test_metrics_sheets_and_hparams(tmp_path):
  writer = writers.Writer(tmp_path, tensorboard=False)
  writer.write_hparams({"a": {"b": 1}, "c": None})
  for step in range(5):
    writer.write_scalars(step, {"d/loss": np.float32(step)})
  rows = {"x": np.zeros((2, 4, 4, 3))}
  writer.write_images(4, rows)
  writer.flush()
  assert [x["step"] for x in lines(tmp_path)] == list(range(5))
  writer.close()
  sheet = np.asarray(Image.open(tmp_path / "previews/00000004_preview.png"))
  assert sheet.shape[0] == 8 and (sheet[2:6, -6:-2] == 128).all()
  np.testing.assert_array_equal(sheet, writers.make_grid(rows, named=True))
  assert json.loads((tmp_path / "hparams.json").read_text()) == {
    "a.b": 1,
    "c": "None",
  }
  # A run that goes on from step 2 lists no step twice.
  with open(tmp_path / "metrics.jsonl", "a") as f:
    f.write('{"step": 5, "d/l')
  writer = writers.Writer(tmp_path, tensorboard=False, start_step=2)
  writer.write_scalars(3, {"d/loss": 9.0})
  writer.close()
  assert [(x["step"], x["d/loss"]) for x in lines(tmp_path)] == [
    (0, 0.0), (1, 1.0), (2, 2.0), (3, 9.0)
  ]  # fmt: skip


def test_only_the_first_process_writes(tmp_path):
  writer = writers.Writer(tmp_path / "x", enabled=False)
  writer.write_scalars(0, {"a": 1.0})
  writer.flush()
  writer.close()
  assert not (tmp_path / "x").exists()


def test_failed_writes_are_told(tmp_path, monkeypatch):
  blocked = tmp_path / "file"
  blocked.write_text("")
  with pytest.raises(WorkdirError, match="cannot write to"):
    writers.Writer(blocked, tensorboard=False)
  writer = writers.Writer(tmp_path / "run", tensorboard=False)

  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(writers.os, "replace", full)
  writer.write_images(1, {"x": np.zeros((1, 4, 4, 3))})
  with pytest.raises(WorkdirError, match="No space left"):
    writer.flush()
  writer.close()


_BODY = """
import pathlib, sys
import numpy as np
HIDE
from faceedit_jax.core import writers
w = writers.Writer(sys.argv[1], tensorboard=True)
w.write_hparams({"lr": 0.1})
w.write_scalars(1, {"a/loss": 2.0})
w.write_images(1, {"x": np.zeros((1, 8, 8, 3))})
w.close()
"""


@pytest.mark.parametrize(
  "hidden", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_tensorboard_files_only_with_tensorflow(tmp_path, root, hidden):
  if not hidden:
    pytest.importorskip("tensorboard")
  hide = 'sys.modules["tensorflow"] = None' if hidden else ""
  subprocess.run(
    [sys.executable, "-c", _BODY.replace("HIDE", hide), str(tmp_path)],
    check=True,
    cwd=root,
  )
  assert lines(tmp_path) == [{"step": 1, "a/loss": 2.0}]
  assert (tmp_path / "previews/00000001_preview.png").exists()
  events = list(pathlib.Path(tmp_path).rglob("events.out.tfevents*"))
  assert bool(events) != hidden


def test_progress_lines_when_there_is_no_terminal():
  now = [0.0]
  out = io.StringIO()
  bar = progress.Progress("ae (1/2)", 10, 100, stream=out, clock=lambda: now[0])
  for step in range(11, 31):
    now[0] += 1.0
    bar.update(step, {"d/loss": 0.5, "d/grad_norm": 3.0})
  assert bar.steps_per_second == pytest.approx(1.0)
  bar.close()
  text = out.getvalue().splitlines()
  assert len(text) == 3  # every ten seconds, and the end
  assert text[0] == "ae (1/2): step 20/100, d 0.5, 1.00 steps/s, 1m20s left"
  assert text[-1].startswith("ae (1/2): step 30/100")
  quiet = io.StringIO()
  bar = progress.Progress("x", 0, 1, enabled=False, stream=quiet)
  bar.update(1, {})
  bar.message("hello")
  bar.close()
  assert not quiet.getvalue()


def test_progress_bar_on_a_terminal():
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  out = Terminal()
  bar = progress.Progress("ae (1/2)", 0, 3, stream=out)
  for step in (1, 2, 3):
    bar.update(step, {"d/loss": 0.25})
  bar.message("hello")
  bar.close()
  assert "ae (1/2)" in out.getvalue() and "d 0.25" in out.getvalue()
  assert "3/3" in out.getvalue() and "hello" in out.getvalue()


def test_durations():
  assert [progress.duration(s) for s in (-1, 12.9, 185, 7620)] == [
    "0s", "12s", "3m05s", "2h07m"
  ]  # fmt: skip
