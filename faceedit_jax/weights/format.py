"""What one sort of published weight file holds, and the net that it fills."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from faceedit_jax.weights.diffusers_models import DiffusersModel
from faceedit_jax.weights.keymap import KeyMap

Sizes = Mapping[str, Mapping[str, Any]]  # section of `nets` -> {field: value}
Net = tuple[nn.Module, tuple]  # a net, and the inputs that its `init` takes

# What Linen and the precision add to the fields that give a net its size.
_NO_SIZE = ("parent", "name", "dtype")


@dataclasses.dataclass(frozen=True)
class CheckpointFormat:
  """One sort of published file.

  Attributes:
    what: a line for the help.
    published: the sections of a config's `nets` that say how large the net is,
      with the values of the published file.
    build: such sections -> the net, and the inputs that `init` takes.
    keymap: a net from `build` -> its key map; torch may number layers by size.
    places: where the net lies in the file, see `parts.find`; the first one
      that is there.
    fresh: see `key_report.fit`.
    widened: see `key_report.fit`.
    renewed: see `key_report.fit`.
    diffusers: the class of diffusers whose files are read as well, and written.
    dotted: a name of the net without its dots -> with them, or None; averages
      of latent diffusion have none.
    hint: of a file that does not fit: what its keys say it is, or "".
  """

  what: str
  published: Sizes
  build: Callable[[Sizes], Net]
  keymap: Callable[[Any], KeyMap]
  places: tuple[str, ...] = ("",)
  fresh: tuple[str, ...] = ()
  widened: tuple[str, ...] = ()
  renewed: tuple[str, ...] = ()
  diffusers: DiffusersModel | None = None
  dotted: Callable[[str], str | None] = lambda name: None
  hint: Callable[[Mapping[str, Any]], str] = lambda state: ""

  def net(self, nets: Sizes | None = None) -> Net:
    """The net at its published size, or at another one.

    Args:
      nets: sections in place of the published ones, as in a config's `nets`;
        a section that it lacks has the published size.

    Returns:
      The net, and the inputs that its `init` takes (shapes and types).

    Raises:
      TypeError: a section has a field that the net does not have.
      ValueError: a field has a value that no published file has.
    """
    given = nets or {}
    return self.build(
      {k: given.get(k, own) for k, own in self.published.items()}
    )


def fixed(keymap: KeyMap) -> Callable[[Any], KeyMap]:
  """A key map that is the same for a net of any size."""
  return lambda net: keymap


def sizes(module: type[nn.Module], *left_out: str, **values: Any) -> dict:
  """{field: value} of a module: its defaults, and `values` where they differ.

  Args:
    module: class of the net.
    *left_out: fields that do not change its parameters.
    **values: fields with another value than their default.
  """
  fields = {
    field.name: field.default
    for field in dataclasses.fields(module)
    if field.name not in (*_NO_SIZE, *left_out)
  }
  if unknown := sorted(set(values) - set(fields)):
    raise TypeError(f"{module.__name__} has no fields {unknown}")
  return fields | values


def fields_of(section: Mapping[str, Any], *others: str) -> dict[str, Any]:
  """A section of `nets` as fields of the net.

  Args:
    section: of a config.
    *others: further entries that are not the net's.
  """
  left_out = ("kind", "weights", *others)  # where the net comes from
  return {k: v for k, v in section.items() if k not in left_out}


def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
  """An input of a net."""
  return jax.ShapeDtypeStruct(shape, dtype)


def picture(side: int) -> jax.ShapeDtypeStruct:
  """One square picture as the input of a net."""
  return array(1, side, side, 3)
