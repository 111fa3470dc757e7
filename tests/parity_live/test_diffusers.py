"""Our nets against those of diffusers in PyTorch, with the same weights.

Run by `pip install -e '.[parity]'` and `pytest tests/parity_live`; add
`-s` for the differences.
"""

import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from faceedit_jax import convert, to_diffusers  # noqa: E402
from faceedit_jax.core import partial_restore  # noqa: E402
from faceedit_jax.weights import diffusers_names  # noqa: E402
from faceedit_jax.weights.checkpoint_formats import FORMATS  # noqa: E402
from tests.parity_live import nets  # noqa: E402


def once(function):
  """`jax.jit` for what runs once: compiling takes most of the time."""
  return jax.jit(function, compiler_options=partial_restore.run_once())


def first_stage_outputs(kind, net, variables, x, z):
  """What ours gives for pictures and for latents."""

  def run(variables, x, z):
    def apply(*args, method):
      return net.apply(variables, *args, method=method)

    if kind == "kl":
      posterior = apply(x, method="encode")
      return {
        "mean": posterior.mean,
        "logvar": posterior.logvar,
        "decoded": apply(z, method="decode"),
      }
    latent = apply(x, method="encode")
    quantised, _, codes = apply(z, method="quantize")
    return {
      "latent": latent,
      "quantised": quantised,
      "codes": codes,
      "decoded": apply(z, method="decode"),
      "unquantised": apply(z, method="decode_quantized"),
    }

  return once(run)(variables, x, z)


@torch.no_grad()
def first_stage_of_torch(kind, net, x, z):
  """The same of theirs, NHWC."""
  x, z = nets.tensor(x), nets.tensor(z)
  if kind == "kl":
    posterior = net.encode(x).latent_dist
    out = {
      "mean": posterior.mean,
      "logvar": posterior.logvar,
      "decoded": net.decode(z).sample,
    }
    return {k: nets.array(v) for k, v in out.items()}
  quantised, _, (_, _, codes) = net.quantize(z)
  out = {
    "latent": net.encode(x).latents,
    "quantised": quantised,
    "decoded": net.decode(z).sample,
    "unquantised": net.decode(z, force_not_quantize=True).sample,
  }
  out = {k: nets.array(v) for k, v in out.items()}
  return out | {"codes": codes.numpy().reshape(out["latent"].shape[:3])}


def compare(label, got, wanted):
  assert set(got) == set(wanted)
  for name, reference in wanted.items():
    if name == "codes":
      np.testing.assert_array_equal(got[name], reference)
      assert len(np.unique(reference)) > 1
    else:
      nets.check(f"{label} {name}", got[name], reference)


@pytest.mark.parametrize("kind", ["vq", "kl"])
@pytest.mark.parametrize("name", nets.AUTOENCODERS)
def test_first_stage(kind, name, rng):
  options = nets.AUTOENCODERS[name]
  net, other = nets.ours(kind, options), nets.theirs(kind, options)
  variables = nets.variables(kind, options, nets.state(other))
  side = 4 * 2 ** (len(options["mult"]) - 1)
  x = rng.uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
  z = 0.1 * rng.normal(size=(2, 4, 4, options["embed_dim"]))
  z = z.astype(np.float32)
  compare(
    f"{kind} {name}",
    first_stage_outputs(kind, net, variables, x, z),
    first_stage_of_torch(kind, other, x, z),
  )


def unet_inputs(options, rng):
  side = 2 ** len(options["mult"])
  inputs = {
    "x": rng.normal(size=(2, side, side, options["in_channels"])),
    "t": np.array([3.0, 871.0]),
    "context": rng.normal(size=(2, 5, options["context_dim"])),
  }
  inputs = {k: v.astype(np.float32) for k, v in inputs.items()}
  if options.get("classes"):
    inputs["labels"] = np.array([0, options["classes"] - 1], np.int32)
  return inputs


def unet_outputs(net, variables, inputs, weight):
  """Output, and its slope by input and context under a random weight."""
  labels = inputs.get("labels")
  labels = None if labels is None else jnp.asarray(labels)

  def total(x, context):
    out = net.apply(
      variables, x, jnp.asarray(inputs["t"]), context, labels=labels
    ).prediction
    return (out * weight).sum(), out

  run = once(jax.value_and_grad(total, (0, 1), has_aux=True))
  (_, out), slopes = run(inputs["x"], inputs["context"])
  return {"out": out, "by input": slopes[0], "by context": slopes[1]}


def unet_of_torch(net, inputs, weight):
  x = nets.tensor(inputs["x"]).requires_grad_()
  context = torch.from_numpy(inputs["context"]).requires_grad_()
  labels = inputs.get("labels")
  out = net(
    x,
    torch.from_numpy(inputs["t"]),
    context,
    class_labels=None if labels is None else torch.from_numpy(labels),
  ).sample
  (out * nets.tensor(weight)).sum().backward()
  return {
    "out": nets.array(out),
    "by input": nets.array(x.grad),
    "by context": context.grad.numpy(),
  }


@pytest.mark.parametrize(
  "name, changes",
  [
    ("levels", {}),
    ("options", {}),
    # Later Stable Diffusion holds these two as linear layers.
    ("options", {"use_linear_projection": True}),
  ],
)
def test_unet(name, changes, rng):
  options = nets.UNETS[name]
  net, other = (
    nets.ours("unet", options),
    nets.theirs("unet", options, **changes),
  )
  variables = nets.variables("unet", options, nets.state(other))
  inputs = unet_inputs(options, rng)
  shape = (*inputs["x"].shape[:3], net.out_channels)
  weight = rng.normal(size=shape).astype(np.float32)
  compare(
    f"unet {name}",
    unet_outputs(net, variables, inputs, weight),
    unet_of_torch(other, inputs, weight),
  )


@pytest.mark.parametrize("kind", ["vq", "kl", "unet"])
@pytest.mark.parametrize("safe", [True, False])
def test_saved_by_them_loaded_by_us_and_back(kind, safe, tmp_path, rng):
  """Their folder -> convert -> to_diffusers -> their class: the same bits."""
  cases = nets.UNETS if kind == "unet" else nets.AUTOENCODERS
  options = cases["options" if kind == "unet" else "levels"]
  other = nets.theirs(kind, options)
  other.save_pretrained(tmp_path / "theirs", safe_serialization=safe)
  file = next((tmp_path / "theirs").glob("diffusion_pytorch_model.*"))
  sizes = nets.section(kind, options)
  arrays, report = convert.convert(kind, file, sizes)
  assert not report.faults and not report.fresh
  convert.write(arrays, tmp_path / "net.safetensors", {})
  exported = to_diffusers.export(kind, tmp_path / "net.safetensors", sizes)
  to_diffusers.write(*exported, tmp_path / "back")
  back, info = type(other).from_pretrained(
    tmp_path / "back", output_loading_info=True, low_cpu_mem_usage=False
  )
  assert not any(info.values()), info
  wanted = nets.state(other)
  got = nets.state(back)
  assert set(got) == set(wanted)
  for key, value in wanted.items():
    np.testing.assert_array_equal(got[key], value)


@pytest.mark.parametrize("kind", ["vq", "kl", "unet"])
def test_an_exported_net_computes_the_same(kind, tmp_path, rng):
  """Weights of ours, never seen by them before."""
  import diffusers

  options = (
    nets.UNETS["options"] if kind == "unet" else nets.AUTOENCODERS["plain"]
  )
  sizes = nets.section(kind, options)
  net, inputs = FORMATS[kind].net(sizes)
  shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)

  def draw(path, leaf):
    value = rng.normal(size=leaf.shape)
    name = path[-1].key
    if name == "kernel":
      value /= np.prod(leaf.shape[:-1]) ** 0.5
    elif name in ("scale", "bias"):
      value = 0.3 * value + (name == "scale")
    return value.astype(np.float32)

  variables = jax.tree_util.tree_map_with_path(draw, shapes)
  flat = {
    jax.tree_util.keystr(k, simple=True, separator="/"): v
    for k, v in jax.tree_util.tree_leaves_with_path(variables)
  }
  convert.write(flat, tmp_path / "net.safetensors", {})
  exported = to_diffusers.export(kind, tmp_path / "net.safetensors", sizes)
  to_diffusers.write(*exported, tmp_path / "net")
  cls = getattr(diffusers, FORMATS[kind].diffusers.cls)
  other = cls.from_pretrained(tmp_path / "net", low_cpu_mem_usage=False).eval()
  if kind == "unet":
    given = unet_inputs(options, rng)
    weight = np.ones((*given["x"].shape[:3], net.out_channels), np.float32)
    got = unet_outputs(net, variables, given, weight)
    wanted = unet_of_torch(other, given, weight)
  else:
    x = rng.uniform(-1, 1, (1, 8, 8, 3)).astype(np.float32)
    z = rng.normal(size=(1, 4, 4, options["embed_dim"])).astype(np.float32)
    got = first_stage_outputs(kind, net, variables, x, z)
    wanted = first_stage_of_torch(kind, other, x, z)
  compare(f"{kind} exported", got, wanted)


@pytest.mark.parametrize("kind", ["vq", "kl", "unet"])
def test_published_sizes(kind):
  """Every key and shape of the full-size classes, without their weights."""
  import diffusers

  options = nets.PUBLISHED[kind]
  made = FORMATS[kind]
  net, inputs = made.net(nets.section(kind, options, codes=16384))
  with torch.device("meta"):
    other = getattr(diffusers, made.diffusers.cls)(
      **made.diffusers.options(net)
    )
  wanted = jax.eval_shape(net.init, jax.random.key(0), *inputs)
  rows = diffusers_names.table(made.diffusers.naming(net), wanted)
  ours = flax.traverse_util.flatten_dict(wanted["params"])
  for key, value in other.state_dict().items():
    goal = rows.pop(key)
    leaf = ours.pop(goal.path)
    assert math.prod(leaf.shape) == value.numel(), key
  assert not rows and not ours
