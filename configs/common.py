"""What the configs of all methods are put together from."""


def optimizer(lr, steps=0, warmup=0, clip=1.0, kind="adam", **more):
  """A cosine over `steps` if given, else a constant rate."""
  return dict(
    kind=kind,
    lr=lr,
    schedule="cosine" if steps else "constant",
    warmup_steps=warmup,
    total_steps=steps,
    final=0.05,
    clip=clip,
    **more,
  )


def stage(recipe, data, steps, **more):
  """One stage with the settings that all of them share."""
  out = dict(
    recipe=recipe,
    data=data,
    steps=steps,
    accumulate=1,
    log_every=50,
    preview_every=500,
    preview_count=8,
    checkpoint_every=500,
    keep=2,
    evaluate=True,
    seed=0,
  )
  out.update(more)
  return out


def check_variant(variant, variants, file):
  """Raises a ValueError that lists the variants, unless it is one of them."""
  if variant not in variants:
    raise ValueError(
      f"{file} has no variant {variant!r}; it has "
      + ", ".join(repr(v) for v in variants)
    )
