"""Optimisers against formulas written out, and against torch's conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from faceedit_jax.core import optim, options
from faceedit_jax.core.errors import UserError


def updates(tx, params, grads):
  state = tx.init(params)
  for step, grad in enumerate(grads):
    delta, state = tx.update(grad, state, params, step=step)
    params = optax.apply_updates(params, delta)
  return np.asarray(params)


def adam_by_hand(params, grads, lr, b1, b2, eps, inside=0.0, beside=0.0):
  m = v = np.zeros_like(params)
  for n, grad in enumerate(grads, 1):
    grad = grad + inside * params
    m, v = b1 * m + (1 - b1) * grad, b2 * v + (1 - b2) * grad**2
    step = (m / (1 - b1**n)) / (np.sqrt(v / (1 - b2**n)) + eps)
    params = params - lr * (step + beside * params)
  return params


@pytest.mark.parametrize(
  "kind, decay",
  [
    ("adam", {}),
    ("adam_l2", {"inside": 0.1}),
    ("adamw", {"beside": 0.1}),
  ],
)
def test_kinds_match_the_formulas(kind, decay):
  params = np.array([1.0, -2.0], np.float32)
  grads = [np.array(g, np.float32) for g in ([0.5, 1.0], [-1.0, 0.2])]
  tx = optim.make_tx(
    kind, 0.01, b1=0.8, b2=0.95, weight_decay=0.1 if decay else 0.0
  )
  wanted = adam_by_hand(params, grads, 0.01, 0.8, 0.95, 1e-8, **decay)
  found = updates(tx, jnp.asarray(params), [jnp.asarray(g) for g in grads])
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_clip_limits_the_global_norm_before_anything_else():
  params = jnp.array([1.0, 1.0])
  # Two gradients of one direction and different lengths, both over the limit.
  # Without clipping Adam's second step would weigh the longer one more.
  grads = [jnp.array([3.0, 4.0]), jnp.array([300.0, 400.0])]
  unit = [jnp.array([0.6, 0.8])] * 2
  found = updates(optim.make_tx(lr=0.1, clip=1.0), params, grads)
  np.testing.assert_allclose(
    found, updates(optim.make_tx(lr=0.1), params, unit), rtol=1e-5
  )
  loose = updates(optim.make_tx(lr=0.1), params, grads)
  assert np.abs(found - loose).max() > 1e-3


def test_schedules():
  flat = optim.make_schedule(2.0, warmup_steps=4)
  np.testing.assert_allclose(
    [flat(n) for n in (0, 2, 4, 100)], [0.0, 1.0, 2.0, 2.0], rtol=1e-6
  )
  cosine = optim.make_schedule(2.0, "cosine", 10, 110, final=0.1)
  np.testing.assert_allclose(
    [cosine(n) for n in (5, 10, 60, 110)], [1.0, 2.0, 1.1, 0.2], rtol=1e-5
  )


def test_a_rate_that_falls_late():
  late = optim.make_schedule(2.0, "cosine", 10, 110, final=0.1, decay_start=50)
  np.testing.assert_allclose(
    [late(n) for n in (5, 10, 49, 50, 80, 110, 200)],
    [1.0, 2.0, 2.0, 2.0, 1.1, 0.2, 0.2],
    rtol=1e-5,
  )
  alone = optim.make_schedule(2.0, "cosine", 0, 110, decay_start=50)
  np.testing.assert_allclose([alone(0), alone(80)], [2.0, 1.0], rtol=1e-5)


@pytest.mark.parametrize(
  "arguments, message",
  [
    ({"kind": "sgdd"}, "'sgdd' is unknown"),
    ({"schedule": "cosin"}, "'cosin' is unknown"),
    ({"schedule": "cosine"}, "total_steps=0"),
    (
      {"schedule": "cosine", "total_steps": 9, "decay_start": 9},
      "decay_start=9, .* < total_steps",
    ),
    (
      dict(schedule="cosine", total_steps=9, warmup_steps=5, decay_start=4),
      "warmup_steps <= decay_start",
    ),
    ({"weight_decay": 0.1}, "wanted kind='adamw'"),
    ({"lr": lambda n: 0.1, "warmup_steps": 5}, "lr is a function"),
  ],
)
def test_errors(arguments, message):
  with pytest.raises(ValueError, match=message):
    optim.make_tx(**arguments)


def test_lazy_corrects_rate_and_memories():
  found = optim.lazy({"lr": 0.002, "b1": 0.0, "b2": 0.99, "clip": 1.0}, 16)
  # StyleGAN2's own numbers for the critic: c = 16 / 17.
  np.testing.assert_allclose(found["lr"], 0.002 * 16 / 17)
  np.testing.assert_allclose(found["b2"], 0.99 ** (16 / 17))
  assert found["b1"] == 0.0 and found["clip"] == 1.0
  optim.make_tx(**found)
  with pytest.raises(ValueError, match="every 0"):
    optim.lazy({}, 0)


def test_ema_warmup():
  decay = jax.jit(optim.ema_warmup(0.9))
  np.testing.assert_allclose(
    [decay(n) for n in (0, 8, 1000)], [0.1, 0.5, 0.9], rtol=1e-6
  )


def test_a_ramp_goes_from_start_to_end():
  ramp = optim.Ramp(start=2.0, end=4.0, steps=10, begin=5)
  at = [float(ramp(step)) for step in (0, 5, 10, 15, 99)]
  assert at == pytest.approx([2, 2, 3, 4, 4])


@pytest.mark.parametrize(
  "value, message",
  [
    ("1", "config.weight is '1', wanted a number or a section with start"),
    (dict(start=1.0, end=0.0), "config.weight lacks the key 'steps'"),
    (dict(start=1, end=0, steps=0), "config.weight: steps is 0, wanted 1"),
  ],
)
def test_a_weight_that_is_no_ramp_is_refused(value, message):
  with pytest.raises(UserError, match=message):
    options.convert(value, optim.Weight, "config.weight")
