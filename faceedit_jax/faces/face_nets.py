"""Builds the face reader of a config, and says where its nets come from.

`nets.estimator.kind` chooses who reads the 3D codes (DiffFAE section 4.1):
"synthetic", our own estimator, or "deca", the published one, which needs our
own as `nets.locator` to find the face; with a section `nets.detail` it also
gives the face its wrinkles. A section of `nets` with `weights`
takes its net from that file (`faceedit_jax.convert`), not from a stage.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from faceedit_jax.core import options as options_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.faces import face_reader
from faceedit_jax.faces import nets as nets_lib
from faceedit_jax.models.faces import estimator as estimator_lib
from faceedit_jax.morphable import detail as detail_lib

KINDS = ("synthetic", "deca")
Ground = Literal["black", "grey"]  # of renderings, see `face_reader.GROUNDS`
# Codes are geometry, and recorded for good: bfloat16 would move a face by about
# half a pixel of 256.
_READING = jnp.float32


def source(section: Mapping[str, Any], stage: str) -> recipe_lib.WeightSource:
  """Where a net comes from: its section's `weights`, or else a stage."""
  path = section.get("weights")
  if path:
    return recipe_lib.WeightSource(path=path)
  return recipe_lib.WeightSource(stage=stage)


@dataclasses.dataclass(frozen=True)
class FaceNets:
  """A reader with the origin and the structure of its nets.

  Attributes:
    reader: the reader.
    code_shapes: shapes of the codes without batch.
    locator_shapes: the same of the locator's.
    sources: {net: where it comes from}.
    morphable: makes the 3D face; it has no weights to load.
    detail: makes the 3D face's `DetailSpace`, if it is rendered with detail.
  """

  reader: face_reader.FaceReader
  code_shapes: Mapping[str, tuple[int, ...]]
  locator_shapes: Mapping[str, tuple[int, ...]]
  sources: Mapping[str, recipe_lib.WeightSource]
  morphable: Callable[[], Any]
  detail: Callable[[], Any] | None = None

  def on_ground(self, name: Ground) -> "FaceNets":
    """The same, whose renderings lie on this ground."""
    ground = face_reader.GROUNDS[name]
    return dataclasses.replace(self, reader=self.reader.replace(ground=ground))

  def init_unsourced(self) -> dict[str, Any]:
    """The nets without `sources`: the 3D face, and how its detail is drawn.

    Raises:
      UserError: its codes are not those that the estimator gives.
    """
    nets = {"morphable": self.morphable()}
    face_reader.check_sizes(nets["morphable"]["params"], self.code_shapes)
    if self.detail is not None:
      nets["detail"] = self.detail()
    return nets

  def init(self, rng, image_size: int) -> dict[str, Any]:
    """{net: variables} with the structure of the nets, and the 3D face.

    Raises:
      UserError: its codes are not those that the estimator gives.
    """
    picture = jnp.zeros((1, image_size, image_size, 3))
    reader, nets = self.reader, self.init_unsourced()
    if self.detail is not None:
      nets["detail_encoder"] = reader.detail_encoder.init(rng, picture)
      nets["detail_decoder"] = reader.detail_decoder.init(
        rng, jnp.zeros((1, face_reader.detail_size(self.code_shapes)))
      )
    if reader.locator is None:
      nets["estimator"] = nets_lib.init_estimator(
        reader.estimator, self.code_shapes, rng, picture
      )
    else:
      # A published file holds no statistics of codes: its outputs are codes.
      nets["estimator"] = reader.estimator.init(rng, picture)
      nets["locator"] = nets_lib.init_estimator(
        reader.locator, self.locator_shapes, rng, picture
      )
    if reader.identity is not None:
      crop = jnp.zeros((1,) + (reader.identity_size,) * 2 + (3,))
      nets["identity"] = reader.identity.init(rng, crop)
    return nets


def from_config(nets, dtype, image_size: int, identity: bool = True):
  """Builds the reader from `nets`.

  Args:
    nets: sections `estimator`, `identity` and, for "deca", `locator`.
    dtype: compute dtype of our own nets and of the identity net.
    image_size: side of the condition rendering in pixels.
    identity: whether it recognises people.

  Raises:
    ValueError: an unknown `nets.estimator.kind`, or one whose nets are not
      there.
  """
  kind = nets.estimator.get("kind", "synthetic")
  if kind not in KINDS:
    raise ValueError(
      f"nets.estimator.kind is {kind!r}; it must be one of {', '.join(KINDS)}"
    )
  sources = {"estimator": source(nets.estimator, "estimator")}
  locator, locator_shapes = None, {}
  if kind == "synthetic":
    estimator, shapes = nets_lib.build_estimator(nets.estimator, dtype)
  else:
    if not sources["estimator"].path:
      raise ValueError(
        "nets.estimator.kind is 'deca' but nets.estimator.weights is empty; "
        "give the converted file, or set nets.estimator.kind='synthetic'"
      )
    estimator, shapes = _deca(nets.estimator)
    locator, locator_shapes = nets_lib.build_estimator(nets.locator, _READING)
    sources["locator"] = source(nets.locator, "locator")
  person = {}
  if identity:
    net, size = nets_lib.build_identity(nets.identity, dtype)
    person = {"identity": net, "identity_size": size}
    sources["identity"] = source(nets.identity, "identity")
  morphable = options_lib.call(
    face_reader.morphable_maker, nets.morphable, "config.nets.morphable"
  )
  detail, space = {}, None
  if nets.get("detail"):
    options = options_lib.build(_Detail, nets.detail, "config.nets.detail")
  if kind == "deca" and nets.get("detail"):
    detail, space = _detail(nets.estimator, options, morphable)
    shapes = {**shapes, "detail": (options.size,)}
    paths = (options.encoder_weights, options.decoder_weights)
    for name, path in zip(detail, paths, strict=True):
      sources[name] = recipe_lib.WeightSource(path=path)
  reader = face_reader.FaceReader(
    estimator=estimator,
    locator=locator,
    condition_size=image_size,
    tone_map=kind == "synthetic",
    **person,
    **detail,
  )
  return FaceNets(reader, shapes, locator_shapes, sources, morphable, space)


@dataclasses.dataclass(frozen=True)
class _Detail:
  """The section `nets.detail`: DECA's detail codes and their files.

  Attributes:
    encoder_weights: converted file of the encoder.
    decoder_weights: converted file of the decoder.
    mask_path: picture of the texels that may have detail.
    fixed_path: displacement that every face has.
    size: length of the code.
    widths: features of the decoder's blocks.
  """

  encoder_weights: str
  decoder_weights: str
  mask_path: str
  fixed_path: str
  size: int
  widths: tuple[int, ...]


def _detail(estimator, options, morphable):
  """DECA's detail encoder and decoder, and where their texels lie."""
  trunk = {**estimator, "outputs": {"detail": options.size}}
  found = {
    "detail_encoder": options_lib.build_net(
      estimator_lib.Estimator, trunk, "config.nets.estimator", dtype=_READING
    ),
    "detail_decoder": estimator_lib.DetailDecoder(
      widths=options.widths, dtype=_READING
    ),
  }

  @functools.cache
  def space():
    with jax.ensure_compile_time_eval(), as_user_error("nets.detail"):
      texels = detail_lib.load_detail_space(
        morphable()["params"], options.mask_path, options.fixed_path
      )
    side = found["detail_decoder"].side
    if texels.mask.shape[0] != side:
      raise UserError(
        f"nets.detail.fixed_path has {texels.mask.shape[0]} texels a side, the "
        f"decoder gives {side}; change nets.detail.widths"
      )
    return {"params": texels}

  return found, space


def _deca(section):
  """DECA's coarse encoder and the shapes of its codes."""
  net = options_lib.build_net(
    estimator_lib.Estimator, section, "config.nets.estimator", dtype=_READING
  )
  return net, nets_lib.code_shapes(net.outputs)
