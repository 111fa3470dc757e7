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


def run(name, image_size, nets, stages, stage, **more):
  """A whole config: what all of them say, `nets` and the stages by name."""
  out = dict(
    name=name,
    seed=0,
    data_dir="data",
    tensorboard=True,
    mesh=dict(data=-1, fsdp=1),
    compute_dtype="float32",
    image_size=image_size,
    nets=nets,
    stages=stages,
    # Second nets, trained with another seed, that only evaluate edits.
    eval_stages=(),
    stage=stage,
  )
  out.update(more)
  return out


def data(source, batch_size, sampler=None, transforms=None, num_threads=8):
  """A stage's data section: four parts, each with one reader."""
  return dict(
    source=dict(source),
    sampler=dict(sampler or {"kind": "single"}),
    transforms=dict(transforms or {}),
    loader=dict(batch_size=batch_size, num_threads=num_threads, limit=0),
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
    max_to_keep=2,
    evaluate=True,
    seed=0,
  )
  out.update(more)
  return out


def arcface(**more):
  """The published identity net: ArcFace's improved ResNet-50, at 112 px."""
  return dict(
    stages=(3, 4, 14, 3),
    widths=(64, 128, 256, 512),
    stem=64,
    embedding=512,
    input_size=112,
    **more,
  )


def small_identity(wide=1):
  """The identity net of the embedded settings, `wide` times as wide."""
  return dict(
    stages=(2, 2, 2, 2),
    widths=tuple(w * wide for w in (16, 32, 64, 128)),
    stem=16 * wide,
    embedding=128 * wide,
    input_size=40 * wide,
  )


def small_identity_stage(source, steps, seed=0, num_threads=4):
  """The stage of an identity net that tells the people of `source` apart."""
  return stage(
    dict(
      name="identity",
      optimizer=optimizer(1e-3, steps, 50),
      identities=source["identities"],
      margin=0.3,
      scale=24.0,
      jitter=0.01,
    ),
    data(source, 48, num_threads=num_threads),
    steps,
    seed=seed,
  )


def constant_rates(recipe):
  """Takes warm-up and cosine from a recipe's optimisers, for a few steps."""
  for key in ("optimizer", "disc_optimizer"):
    if key in recipe:
      recipe[key].update(schedule="constant", warmup_steps=0, total_steps=0)


def check_variant(variant, variants, file):
  """Raises a ValueError that lists the variants, unless it is one of them."""
  if variant not in variants:
    raise ValueError(
      f"{file} has no variant {variant!r}; it has "
      + ", ".join(repr(v) for v in variants)
    )
