"""The benchmark of the U-Net runs, and both sides do the same work."""

import json
import math

import jax
import numpy as np
import pytest

from tests.benchmarks import unet_sides, unet_vs_diffusers


def options(**changes):
  arguments = unet_vs_diffusers.parse(["--size=tiny", "--side=4"])
  fields = unet_sides.Options.__dataclass_fields__
  values = {k: v for k, v in vars(arguments).items() if k in fields}
  return unet_sides.Options(**values | changes)


def test_both_sides(tmp_path, capsys):
  pytest.importorskip("torch")
  pytest.importorskip("diffusers")
  file = tmp_path / "figures.json"
  unet_vs_diffusers.main(
    ["--size=tiny", "--side=4", "--steps=2", "--repeats=1", f"--json={file}"]
  )
  found = json.loads(file.read_text())
  ours, theirs = found["ours"], found["theirs"]
  assert ours["parameters"] == theirs["parameters"] > 10_000
  # The second loss is that after one update.
  np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-4)
  assert ours["losses"][1] < ours["losses"][0]
  for side in (ours, theirs):
    for work in ("train", "sample"):
      assert side[work]["seconds"] > 0 and side[work]["cpu_seconds"] > 0
      assert side[work]["memory"] > 1e8
      assert math.isfinite(side[work]["outcome"])
  assert found["options"]["steps"] == 2
  printed = capsys.readouterr().out
  assert "ours/theirs" in printed and "TFLOP/s" in printed


def test_operations_are_counted():
  """Of a step, against the net's products and convolutions by hand."""
  sizes = options()
  batch = sizes.inputs()
  recipe = unet_sides.Denoising(sizes.net(attention_kernel="xla"), batch)
  counted = unet_sides.step_flops(recipe, batch)
  weights = jax.eval_shape(recipe.init, jax.random.key(0))["unet"]["params"]
  pixels, total = sizes.side**2, 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if leaf.ndim < 2:
      continue
    rows = pixels
    if "time" in name:
      rows = 1
    elif "attn2/to_k" in name or "attn2/to_v" in name:
      rows = unet_sides.TOKENS["tiny"]
    total += 2 * math.prod(leaf.shape) * rows
  # Forward, and twice that for the slopes; norms, activations and attention
  # come on top, and the padding of convolutions is not counted.
  assert 0.6 < counted / (3 * sizes.batch * total) < 1.2


def test_ours_alone():
  work = {"seconds": 2.0, "cpu_seconds": 1.5, "memory": 2**30}
  found = {
    "ours": {
      "parameters": 5,
      "platform": "gpu",
      "device": "Card",
      "train_flops": 1e12,
      "train": work,
      "sample": {k: work[k] for k in ("seconds", "cpu_seconds")},
    },
    "theirs": {"missing": "torch sees no GPU"},
    "matrix_rate": 2e12,
    "load": (0.0, 0.0),
  }
  text = unet_vs_diffusers.report(options(), found)
  assert "ours alone: torch sees no GPU" in text
  assert "diffusers" not in text and "processor" not in text
  assert "0.500 TFLOP/s = 25% of the 2.000 TFLOP/s" in text
