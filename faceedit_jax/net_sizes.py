"""How large a published net is: as published, or as a config says."""

from collections.abc import Iterable
from typing import Any

from faceedit_jax.core import config as config_lib
from faceedit_jax.core.config import ConfigDict
from faceedit_jax.core.errors import as_user_error
from faceedit_jax.weights.format import Sizes

_NETS = "nets."


def of_command(
  published: Sizes, source: str | None, overrides: Iterable[str]
) -> dict[str, dict[str, Any]]:
  """The sections of `nets` that a command line asks for.

  Args:
    published: sections that stand where nothing else is asked for.
    source: "FILE[:variant]", a config whose `nets` replace them, or None.
    overrides: "nets.unet.channels=128", from `config.split_args`; others than
      those of `nets` change the config of `source`.

  Returns:
    {section: {field: value}}.

  Raises:
    UserError: one line: no such config, or no such key.
  """
  own = [a for a in overrides if a.startswith(_NETS)]
  others = [a for a in overrides if not a.startswith(_NETS)]
  with as_user_error("--config"):
    nets = dict(published)
    if source:
      config = config_lib.override(config_lib.load(source), others)
      nets |= _of_config(config, published)
    elif others:
      own = [*own, *others]  # refused below, with the nearest key
    changed = config_lib.override(config_lib.from_dict({"nets": nets}), own)
  return config_lib.net_fields(changed)


def _of_config(config: ConfigDict, published: Sizes) -> dict[str, dict]:
  """`nets` of a config, each with what is said once for all nets."""
  said = {"image_size": config.get("image_size")}
  recipe = config.stage[config.stages[-1]].recipe
  if "attributes" in recipe:  # each makes two
    said["domains"] = 2 * len(recipe.attributes)
  nets = config_lib.net_fields(config)
  for name, fields in published.items():
    if name in nets:
      once = {k: v for k, v in said.items() if k in fields and v is not None}
      nets[name] = once | nets[name]
  return nets
