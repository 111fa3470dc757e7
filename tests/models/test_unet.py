"""The U-Net: published sizes, maps, modulation, errors."""

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.core import partial_restore
from faceedit_jax.models.diffusion.unet import UNet
from faceedit_jax.models.diffusion.unet_interface import MEAN_MAPS
from faceedit_jax.nn.blocks import ResBlock
from faceedit_jax.nn.layers import GroupNorm, conv, dense, instance_norm
from tests.models.counts import array, parameters, randomised, shapes

TINY = {
  "in_channels": 3,
  "out_channels": 2,
  "channels": 8,
  "mult": (1, 2),
  "res_blocks": 1,
  "attention_levels": (1,),
  "heads": 2,
  "context_dim": 5,
  "condition_dim": 6,
  "groups": 4,
}


@pytest.mark.parametrize(
  ("adain", "count"),
  [("none", 845_155_524), ("residual", 865_839_684), ("replace", 865_839_684)],
)
def test_paper_size(adain, count):
  condition = None if adain == "none" else array(1, 512)
  x, t, context = array(1, 32, 32, 8), array(1), array(1, 4, 192)
  assert parameters(UNet(adain=adain), x, t, context, condition) == count


def test_published_size():
  net = UNet(in_channels=4, context_dim=768)
  x, t, context = array(1, 32, 32, 4), array(1), array(1, 77, 768)
  assert parameters(net, x, t, context) == 859_520_964


def inputs(rng):
  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  return normal(2, 8, 8, 3), jnp.array([3, 700]), normal(2, 4, 5), normal(2, 6)


def test_maps_and_batch(rng):
  x, t, context, condition = inputs(rng)
  args = (x, t, context, condition)
  net = UNet(adain="residual", **TINY)
  variables = randomised(net, rng, *args)
  run = jax.jit(net.apply, static_argnames="capture")
  with_maps = run(variables, *args, capture=MEAN_MAPS)
  out = with_maps.prediction
  assert out.shape == (2, 8, 8, 2)
  assert {k: m.shape for k, m in with_maps.cross_maps.items()} == {
    "encoder/1/0/0": (2, 4, 4, 4),
    "middle/0": (2, 4, 4, 4),
    "decoder/1/0/0": (2, 4, 4, 4),
    "decoder/1/1/0": (2, 4, 4, 4),
  }
  for m in with_maps.cross_maps.values():
    np.testing.assert_allclose(m.sum(-1), 1, atol=1e-5)
  plain = run(variables, *args)
  np.testing.assert_allclose(plain.prediction, out, atol=2e-5)
  assert not plain.cross_maps

  alone = run(variables, *(a[1:] for a in args)).prediction
  np.testing.assert_allclose(alone, out[1:], atol=2e-5)


def primitives(jaxpr):
  """How often each operation occurs, inner programs included."""
  found = collections.Counter()
  for equation in jaxpr.eqns:
    found[equation.primitive.name] += 1
    for value in equation.params.values():
      for inner in value if isinstance(value, tuple | list) else (value,):
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
          found += primitives(inner)
  return found


REMATS = ("none", "blocks", "dots")


def slope_of(net, args, **options):
  """Loss, what it is made of, and its slope, of variables."""

  def loss(variables):
    out = net.apply(variables, *args, **options)
    return sum(jnp.square(x).sum() for x in jax.tree.leaves(out)), out

  return jax.value_and_grad(loss, has_aux=True)


@pytest.mark.parametrize("attention", ["transformer", "self"])
def test_remat_computes_anew(rng, attention):
  args = inputs(rng)
  options = {**TINY, "adain": "residual", "attention": attention}
  nets = {r: UNet(remat=r, **options) for r in REMATS}
  trees = {r: shapes(net, *args) for r, net in nets.items()}
  assert trees["none"] == trees["blocks"] == trees["dots"]
  none, blocks, dots = (
    primitives(jax.make_jaxpr(slope_of(nets[r], args))(trees[r]).jaxpr)
    for r in REMATS
  )
  assert none["remat2"] == 0 < blocks["remat2"] == dots["remat2"]
  convolutions, silus = "conv_general_dilated", "logistic"
  assert blocks[convolutions] > none[convolutions] == dots[convolutions]
  assert min(blocks[silus], dots[silus]) > none[silus]
  # The products inside an attention are computed anew, those with weights are
  # not.
  assert blocks["dot_general"] > dots["dot_general"] > none["dot_general"]


def test_remat_is_only_a_matter_of_memory(rng):
  args = inputs(rng)
  options = TINY | {"adain": "residual", "mult": (1,), "attention_levels": ()}
  variables = randomised(UNet(**options), rng, *args)

  def results(remat):
    slope = slope_of(UNet(remat=remat, **options), args, capture=MEAN_MAPS)
    # Compiling takes most of the time.
    once = jax.jit(slope, compiler_options=partial_restore.run_once())
    return jax.tree.leaves(once(variables))

  plain = results("none")
  for remat in ("blocks", "dots"):
    for a, b in zip(results(remat), plain, strict=True):
      scale = max(1.0, float(jnp.abs(b).max()))
      np.testing.assert_allclose(a, b, atol=1e-5 * scale)


def test_unknown_remat(rng):
  with pytest.raises(ValueError, match="'all', wanted one of none, blocks, do"):
    shapes(UNet(**{**TINY, "remat": "all"}), *inputs(rng)[:3])


@pytest.mark.parametrize("adain", ["residual", "replace"])
def test_modulation(adain, rng):
  x = jnp.asarray(rng.normal(size=(2, 4, 4, 8)), jnp.float32)
  time = jnp.asarray(rng.normal(size=(2, 8)), jnp.float32)
  condition = jnp.asarray(rng.normal(size=(2, 6)), jnp.float32)
  block = ResBlock(8, 4, adain=adain)
  plain = ResBlock(8, 4)
  variables = block.init(jax.random.key(0), x, time, condition)
  params = variables["params"]
  params["conv2"]["kernel"] = jnp.asarray(rng.normal(size=(3, 3, 8, 8)))
  params["conv2"]["kernel"] = params["conv2"]["kernel"].astype(jnp.float32)
  start = block.apply(variables, x, time, condition)
  # The condition has no influence at the start...
  np.testing.assert_array_equal(
    start, block.apply(variables, x, time, condition + 1)
  )
  if adain == "residual":
    rest = {k: v for k, v in params.items() if k != "adain"}
    expected = plain.apply({"params": rest}, x, time)
    np.testing.assert_allclose(start, expected, atol=1e-6)
  # ... and has some once the weights move.
  params["adain"]["kernel"] = params["adain"]["kernel"] + 0.1
  moved = block.apply(variables, x, time, condition)
  assert np.abs(moved - start).max() > 1e-3


def test_time_outlives_the_instance_norm(rng):
  """Eq. (4) with the time after it; before it, the norm would take it away."""
  x = jnp.asarray(rng.normal(size=(2, 4, 4, 8)), jnp.float32)
  early, late = jnp.asarray(rng.normal(size=(2, 2, 8)), jnp.float32)
  condition = jnp.asarray(rng.normal(size=(2, 6)), jnp.float32)
  block = ResBlock(8, 4, adain="replace", zero_out=False)
  params = block.init(jax.random.key(0), x, early, condition)["params"]
  draw = iter(jax.random.split(jax.random.key(1), 99))
  params = jax.tree.map(
    lambda a: a + 0.3 * jax.random.normal(next(draw), a.shape), params
  )

  def at(time):
    return block.apply({"params": params}, x, time, condition)

  assert np.abs(at(late) - at(early)).mean() > 0.1
  # Eq. (4) step by step, from the block's own layers.
  silu = nn.silu
  first = GroupNorm(4).apply({"params": params["norm1"]}, x)
  first = conv(8).apply({"params": params["conv1"]}, silu(first))
  s, b = jnp.split(
    dense(16).apply({"params": params["adain"]}, silu(condition)), 2, -1
  )
  shift = dense(8).apply({"params": params["time"]}, silu(early))
  s, b, shift = (v[:, None, None] for v in (s, b, shift))
  scale, bias = params["norm2"]["scale"], params["norm2"]["bias"]
  h_s, h_b = scale * (1 + s), bias * (1 + s) + b

  def rest(h):
    return x + conv(8).apply({"params": params["conv2"]}, silu(h))

  whole = rest(h_s * instance_norm(first) + h_b + shift)
  np.testing.assert_allclose(at(early), whole, atol=1e-5)

  def old_order(time):
    shift = dense(8).apply({"params": params["time"]}, silu(time))
    h = instance_norm(first + shift[:, None, None])
    return rest(h_s * h + h_b)

  np.testing.assert_allclose(old_order(early), old_order(late), atol=1e-4)


def test_the_prediction_depends_on_the_time(rng):
  x, _, context, condition = inputs(rng)
  net = UNet(adain="replace", **TINY)
  t = jnp.array([3.0, 3.0])
  variables = randomised(net, rng, x, t, context, condition)
  run = jax.jit(lambda t: net.apply(variables, x, t, context, condition))
  one, other = run(t).prediction, run(t + 600).prediction
  assert np.abs(one - other).mean() > 0.05 * np.abs(one).mean()


def test_bfloat16_keeps_float32_parameters(rng):
  args = inputs(rng)[:3]
  net = UNet(dtype=jnp.bfloat16, **TINY)
  variables = jax.eval_shape(net.init, jax.random.key(0), *args)
  assert {x.dtype.name for x in jax.tree.leaves(variables)} == {"float32"}
  out = jax.eval_shape(net.apply, variables, *args)
  assert out.prediction.dtype == jnp.float32


def test_errors(rng):
  x, t, context, condition = inputs(rng)

  def init(*args, **kw):
    net = UNet(**{**TINY, **kw})
    return jax.eval_shape(net.init, jax.random.key(0), *args)

  with pytest.raises(ValueError, match="in_channels 2, wanted 3"):
    init(x[..., :2], t, context)
  with pytest.raises(ValueError, match="context_dim 4, wanted 5"):
    init(x, t, context[..., :4])
  with pytest.raises(ValueError, match="condition_dim None, wanted 6"):
    init(x, t, context, adain="replace")
  with pytest.raises(ValueError, match="multiple of 3"):
    init(x, t, context, groups=3)
