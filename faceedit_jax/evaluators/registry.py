"""Which evaluator scores an editing recipe: `recipe.evaluation.kind`."""

from faceedit_jax.evaluators import counterfactual, reenactment

KINDS = {
  "counterfactual": counterfactual.from_config,
  "reenactment": reenactment.from_config,
}


def from_config(options, reader, code_shapes, image_size):
  """Builds the evaluator.

  Args:
    options: `recipe.evaluation`; `kind` is "counterfactual" (where true
      outcomes exist, as on synthetic heads; the default) or "reenactment".
    reader: the nets that read faces.
    code_shapes: shapes of their codes without batch.
    image_size: side of the pictures in pixels.

  Raises:
    ValueError: an unknown kind, or what its evaluator refuses.
  """
  kind = options.get("kind", "counterfactual")
  if kind not in KINDS:
    raise ValueError(
      f"recipe.evaluation.kind is {kind!r}; it must be one of "
      + ", ".join(map(repr, KINDS))
    )
  # Who scores reads no wrinkles: no measure asks for them.
  reader = reader.replace(detail_encoder=None, detail_decoder=None)
  return KINDS[kind](options, reader, code_shapes, image_size)
