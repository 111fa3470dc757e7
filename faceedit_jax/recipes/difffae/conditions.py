"""What the frozen nets say of a pair of pictures: DiffFAE sections 4.1, 4.2.

The source's identity vector, the query's latents and those of its rendering,
and where its regions probably are. These features can be computed in every
step, once before the first one, or (codes, identity, latents) when the data are
prepared.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from faceedit_jax.core import batch as batch_lib
from faceedit_jax.faces import (
  face_nets,
  face_reader,
  region_prior,
  slot_regions,
)
from faceedit_jax.models.diffusion import autoencoder as autoencoder_lib
from faceedit_jax.recipes.pretrain import first_stage

PERSON = "person_vector"  # identity vector, of the source
CLEAN, CONDITION = "latent", "condition_latent"  # picture and rendering
REGION_PRIOR = "region_prior"  # where the regions probably are
# What a prepared set can hold.
Prepared = Literal["codes", "person_vector", "latent"]


def in_batch(feature: str) -> str:
  """A feature's name in a batch: of the source or of the query."""
  return f"{'source' if feature == PERSON else 'query'}_{feature}"


@dataclasses.dataclass(frozen=True)
class Conditions:
  """Reads pairs.

  Attributes:
    face: estimator, identity net and renderer.
    autoencoder: first stage.
    image_size: side of the pictures in pixels.
    latent_scale: number, or 0 to scale latents by 1 / their spread.
    region_prior_side: side of the region maps; 0 for none.
    cache_features: whether batches hold all features already.
    prepared_features: what the prepared set stores of each picture, see
      `Prepared`.
  """

  face: face_nets.FaceNets
  autoencoder: autoencoder_lib.VQModel
  image_size: int
  latent_scale: float = 0.0
  region_prior_side: int = 0
  cache_features: bool = False
  prepared_features: tuple[Prepared, ...] = ()

  @property
  def latent_side(self) -> int:
    return self.image_size // 2 ** (len(self.autoencoder.mult) - 1)

  # Latents.

  def scale(self, frozen):
    """What latents are multiplied by."""
    if self.latent_scale:
      return self.latent_scale
    return first_stage.latent_scale(frozen["autoencoder"])

  def encode(self, frozen, image):
    """Scaled latents (b, h, w, c) of pictures in [-1, 1]."""
    variables = {"params": frozen["autoencoder"]["params"]}
    latent = self.autoencoder.apply(variables, image, method="encode")
    return latent.astype(jnp.float32) * self.scale(frozen)

  def decode(self, frozen, latent):
    """Pictures in [-1, 1] of scaled latents, through the codebook."""
    variables = {"params": frozen["autoencoder"]["params"]}
    image = self.autoencoder.apply(
      variables, latent / self.scale(frozen), method="decode"
    )
    return jnp.clip(image.astype(jnp.float32), -1, 1)

  # Computed once, before the first step.

  def feature_spec(self) -> dict[str, batch_lib.Field]:
    if not self.cache_features:
      return {}
    side, latent = self.latent_side, self.autoencoder.embed_dim
    spec = {
      PERSON: batch_lib.Field((self.face.reader.identity.embedding,)),
      CLEAN: batch_lib.Field((side, side, latent)),
      CONDITION: batch_lib.Field((side, side, latent)),
    }
    if self.region_prior_side:
      grid = (self.region_prior_side,) * 2
      spec[REGION_PRIOR] = batch_lib.Field((*grid, len(slot_regions.REGIONS)))
    return spec

  def compute_features(self, frozen, image):
    """All features of pictures, as sources and as queries."""
    reader = self.face.reader
    codes = reader.codes(frozen, image)
    person = reader.embed(frozen, image, codes[face_reader.POINTS5])
    return {PERSON: person} | self._query_features(frozen, image, codes)

  def _query_features(self, frozen, image, codes, clean=None):
    # In training shape and albedo are the query's too (eq. 3): it is the
    # same person.
    rendered = self.face.reader.render(frozen, codes)
    if clean is None:
      both = self.encode(frozen, jnp.concatenate([image, rendered["image"]]))
      clean, condition = both[: len(image)], both[len(image) :]
    else:
      condition = self.encode(frozen, rendered["image"])
    found = {CLEAN: clean, CONDITION: condition}
    if self.region_prior_side:
      found[REGION_PRIOR] = region_prior.masks(
        frozen["morphable"]["params"],
        rendered["ids"],
        codes[face_reader.POINTS5],
        image,
        self.region_prior_side,
      )
    return found

  # Stored when the data were prepared.

  def _prepared_spec(self) -> dict[str, batch_lib.Field]:
    """{stored field: shape} of what `prepared_features` names."""
    spec = {}
    if "codes" in self.prepared_features:
      for name, shape in self.face.code_shapes.items():
        spec[name] = batch_lib.Field(tuple(shape))
      spec[face_reader.POINTS5] = batch_lib.Field((5, 2))
    if PERSON in self.prepared_features:
      spec[PERSON] = batch_lib.Field((self.face.reader.identity.embedding,))
    if CLEAN in self.prepared_features:
      side = self.latent_side
      spec[CLEAN] = batch_lib.Field((side, side, self.autoencoder.embed_dim))
    return spec

  def prepared_nets(self) -> tuple[str, ...]:
    """Frozen nets that `prepare_features` reads."""
    if not self.prepared_features:
      return ()
    first = ("autoencoder",) if CLEAN in self.prepared_features else ()
    rest = ("identity", "detail_decoder")
    nets = [n for n in self.face.sources if n not in rest]
    person = ("identity",) if PERSON in self.prepared_features else ()
    return (*nets, *person, *first)

  def prepare_features(self, frozen, image, points68=None):
    """Fields of `prepared_features` for pictures, and the face logit."""
    reader = self.face.reader
    found = reader.codes(frozen, image, points68)
    if PERSON in self.prepared_features:
      points = found[face_reader.POINTS5]
      found = found | {PERSON: reader.embed(frozen, image, points)}
    if CLEAN in self.prepared_features:
      found = found | {CLEAN: self.encode(frozen, image)}
    names = (*self._prepared_spec(), face_reader.POINTS5, "face")
    return {name: found[name] for name in names}

  # In a step.

  def batch_spec(self) -> dict[str, batch_lib.Field]:
    """What batches hold beside the pictures."""
    if self.cache_features:
      return {in_batch(n): field for n, field in self.feature_spec().items()}
    spec = {}
    for name, field in self._prepared_spec().items():
      if name != PERSON:
        spec[f"query_{name}"] = field
      if name == PERSON or (
        name == face_reader.POINTS5 and PERSON not in self.prepared_features
      ):
        spec[f"source_{name}"] = field
    return spec

  def pair_features(self, frozen, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The features that a loss needs, by name; no gradient goes through."""
    if self.cache_features:
      return {name: batch[in_batch(name)] for name in self.feature_spec()}
    source, query = batch["source_image"], batch["query_image"]
    points = batch.get(f"source_{face_reader.POINTS5}")
    if "codes" in self.prepared_features:
      names = (*self.face.code_shapes, face_reader.POINTS5)
      of_query = {name: batch[f"query_{name}"] for name in names}
      of_query.setdefault("gaze", jnp.zeros((len(query), 2)))
    else:
      both = self.face.reader.codes(frozen, jnp.concatenate([source, query]))
      of_query = jax.tree.map(lambda a: a[len(source) :], both)
      points = both[face_reader.POINTS5][: len(source)]
    clean = batch.get(f"query_{CLEAN}")
    found = self._query_features(frozen, query, of_query, clean)
    person = batch.get(f"source_{PERSON}")
    if person is None:
      person = self.face.reader.embed(frozen, source, points)
    return jax.lax.stop_gradient(found | {PERSON: person})
