"""Builds the nets that read faces: the estimator of 3D codes, the identity net.

Recipes train them, others read with them; both build them from one section.
"""

import jax.numpy as jnp

from faceedit_jax.core import options as options_lib
from faceedit_jax.core.errors import UserError
from faceedit_jax.models.faces import estimator as estimator_lib
from faceedit_jax.models.faces import iresnet


def init_estimator(net, shapes, rng, picture):
  """Variables of the net, with the statistics of codes not yet seen."""
  zeros = {k: jnp.zeros(s) for k, s in shapes.items()}
  ones = {k: jnp.ones(s) for k, s in shapes.items()}
  codes = {"count": jnp.zeros(()), "mean": zeros, "square": ones, "std": ones}
  return {**net.init(rng, picture), "codes": codes}


def build_estimator(spec, dtype):
  """The estimator net and the shapes of its codes, from `nets.estimator`.

  Returns:
    (net, {code name: shape without batch}).
  """
  net = options_lib.build_net(
    estimator_lib.Estimator,
    spec,
    "config.nets.estimator",
    heads={"gaze": 2, "landmarks": 10, "face": 1},
    dtype=dtype,
  )
  return net, {**code_shapes(net.outputs), "gaze": (2,)}


def code_shapes(outputs) -> dict[str, tuple[int, ...]]:
  """Shapes of the codes without batch, from their sizes."""
  return {k: (9, 3) if k == "light" else (n,) for k, n in outputs.items()}


def build_identity(spec, dtype):
  """The identity net and the side of its crop, from `nets.identity`."""
  fields, where = dict(spec), "config.nets.identity"
  if "input_size" not in fields:
    raise UserError(f"{where} lacks the key 'input_size'")
  size = options_lib.convert(
    fields.pop("input_size"), int, f"{where}.input_size"
  )
  net = options_lib.build_net(iresnet.IResNet, fields, where, dtype=dtype)
  return net, size
