"""Reads a face for the editing recipes: 3D codes, points, identity, rendering.

DiffFAE section 4.1 (DECA codes rendered as the query condition) and 4.2
(ArcFace identity token), as one value that recipes share. Every array it needs
arrives as a frozen variable; nothing is closed over.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from faceedit_jax import morphable as morphable_lib
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.faces import face_crops
from faceedit_jax.models.faces import estimator as estimator_lib
from faceedit_jax.models.faces import iresnet
from faceedit_jax.morphable import albedo_basis
from faceedit_jax.morphable import model as model_lib
from faceedit_jax.morphable import render as render_lib
from faceedit_jax.nn import warp

Codes = Mapping[str, Any]

# The codes that a rendering is drawn from.
DRAWN = (
  "shape",
  "albedo",
  "expression",
  "pose",
  "gaze",
  "light",
  "camera",
)
POINTS5 = "landmarks5"
# Grounds of renderings, by name.
BLACK = -1.0
GROUNDS = {"black": BLACK, "grey": 0.0}
DETAIL = "detail"  # code of the face's wrinkles, where one is read


def destandardise(raw: Codes, statistics: Mapping[str, Codes]) -> dict:
  """Network outputs to face codes: mean + std * raw, group by group."""
  mean, std = statistics["mean"], statistics["std"]
  return {k: mean[k] + std[k] * raw[k] if k in mean else raw[k] for k in raw}


class FaceReader(struct.PyTreeNode):
  """The frozen nets through which an editing recipe looks at a face.

  Attributes:
    estimator: parameter estimator of DECA's architecture.
    locator: estimator of ours that finds the five points where `estimator`
      cannot: DECA reads codes only, from a square round the face.
    identity: ArcFace-style identity net; None where nobody is recognised.
    identity_size: side of the aligned crop that the identity net reads.
    condition_size: side of the condition rendering in pixels.
    detail_encoder: reads the code of the face's wrinkles from the same square
      (DECA's E_detail); None leaves them out.
    detail_decoder: that code, the expression and the jaw to a displacement in
      texture space (DECA's D_detail).
    tone_map: whether renderings get the synthetic pictures' tone curve. DECA's
      light is fitted without one.
    ground: what renderings show where no head is, in [-1, 1]: black unless
      given.
  """

  estimator: estimator_lib.Estimator = struct.field(pytree_node=False)
  locator: estimator_lib.Estimator | None = struct.field(
    pytree_node=False, default=None
  )
  detail_encoder: estimator_lib.Estimator | None = struct.field(
    pytree_node=False, default=None
  )
  detail_decoder: estimator_lib.DetailDecoder | None = struct.field(
    pytree_node=False, default=None
  )
  identity: iresnet.IResNet | None = struct.field(
    pytree_node=False, default=None
  )
  identity_size: int = struct.field(pytree_node=False, default=112)
  condition_size: int = struct.field(pytree_node=False, default=256)
  tone_map: bool = struct.field(pytree_node=False, default=True)
  ground: float = struct.field(pytree_node=False, default=BLACK)

  def points(self, frozen, image):
    """Five points (b, 5, 2) in unit coordinates and the face logit (b,)."""
    if self.locator is None:
      codes = read_codes(self.estimator, frozen["estimator"], image)
    else:
      codes = read_codes(self.locator, frozen["locator"], image)
    return codes[POINTS5], codes["face"]

  def codes(self, frozen, image, points68=None) -> dict:
    """Face codes of pictures (b, h, w, 3) in [-1, 1].

    Args:
      frozen: frozen variables.
      image: (b, h, w, 3) in [-1, 1].
      points68: 68 landmarks (b, 68, 2) in unit coordinates, if somebody has
        them: with a `locator`, DECA's square is cut round them.

    Returns:
      shape (b, n_s), albedo (b, n_a), expression (b, n_e), pose (b, 6), gaze
      (b, 2), light (b, 9, 3), camera (b, 3), landmarks5 (b, 5, 2) in unit
      coordinates and face (b,), the logit of "there is a face".
    """
    if self.locator is None:
      return read_codes(self.estimator, frozen["estimator"], image)
    points, face = self.points(frozen, image)
    if points68 is None:
      box = face_crops.deca_from_five(points)
    else:
      points = face_crops.five_of_68(points68)
      box = face_crops.deca_from_68(points68, image.shape[1])
    outside = face_crops.DECA_OUTSIDE
    codes = read_square(
      self.estimator, frozen["estimator"], image, box, outside
    )
    if self.detail_encoder is not None:
      net = self.detail_encoder
      square = face_crops.look(image, box, net.input_size, outside)
      codes |= net.apply(frozen["detail_encoder"], square)
    return codes | {POINTS5: points, "face": face}

  def features(self, frozen, image):
    """What the estimator makes of whole pictures, (b, hidden).

    Args:
      frozen: frozen variables.
      image: (b, h, w, 3) in [-1, 1].
    """
    layers = {k: v for k, v in frozen["estimator"].items() if k != "codes"}
    return self.estimator.apply(layers, image, method="features")

  def embed(self, frozen, image, points):
    """Unit identity vectors (b, d) of the faces at `points` (b, 5, 2)."""
    crop = warp.face_crop(image, points, self.identity_size)
    return iresnet.normalize(self.identity.apply(frozen["identity"], crop))

  def render(self, frozen, codes: Codes, still: Codes | None = None) -> dict:
    """Renders the condition.

    Args:
      frozen: frozen variables; "morphable" is the 3D face.
      codes: what to draw.
      still: codes whose face stays where it is; the drawn head is moved there
        (DiffusionRig's inference), since a turned head would jump.

    Returns:
      "image" (b, s, s, 3) in [-1, 1], `ground` where no head is, "mask"
      (b, s, s), 1 on the head, and "ids" (b, s, s), triangles or -1.
    """
    detail = {}
    if self.detail_decoder is not None:
      face = [codes["pose"][:, 3:], codes["expression"], codes[DETAIL]]
      detail["displacement"] = self.detail_decoder.apply(
        frozen["detail_decoder"], jnp.concatenate(face, axis=-1)
      )
      detail["detail"] = frozen["detail"]["params"]
    made = render_lib.render_condition(
      frozen["morphable"]["params"],
      {k: codes[k] for k in DRAWN},
      self.condition_size,
      source_codes=still,
      tone_map=self.tone_map,
      **detail,
    )
    if self.ground == BLACK:  # as it is drawn
      return made
    seen = made["mask"][..., None] > 0
    return made | {"image": jnp.where(seen, made["image"], self.ground)}

  def render_edit(
    self,
    frozen,
    source: Codes,
    pose: Codes,
    expression: Codes,
    light: Codes,
    camera: str = "source",
  ) -> dict:
    """Condition of an edit: the source's person under others' factors.

    Args:
      frozen: frozen variables.
      source: codes that give shape, albedo and wrinkles (DiffFAE eq. 3; of
        the wrinkles inferred, they follow the expression by the decoder).
      pose: codes that give the head rotation, pose[0:3].
      expression: codes that give expression, jaw (pose[3:6]) and gaze.
      light: codes that give the light.
      camera: "source" keeps the source's camera and re-centres the head,
        "query" takes the camera of `pose`.

    Returns:
      What `render` returns.

    Raises:
      ValueError: an unknown camera.
    """
    if camera not in ("source", "query"):
      raise ValueError(
        f"camera_from is {camera!r}; it must be 'source' or 'query'"
      )
    mixed = {
      "shape": source["shape"],
      "albedo": source["albedo"],
      "expression": expression["expression"],
      "gaze": expression["gaze"],
      "pose": jnp.concatenate(
        [pose["pose"][:, :3], expression["pose"][:, 3:]], axis=-1
      ),
      "light": light["light"],
      "camera": (source if camera == "source" else pose)["camera"],
    }
    if DETAIL in source:
      mixed[DETAIL] = source[DETAIL]
    still = {k: source[k] for k in DRAWN} if camera == "source" else None
    return self.render(frozen, mixed, still)


def detail_size(code_shapes: Mapping[str, tuple[int, ...]]) -> int:
  """How many numbers the detail decoder takes: jaw, expression, detail."""
  return 3 + code_shapes["expression"][0] + code_shapes[DETAIL][0]


def check_sizes(model, code_shapes: Mapping[str, tuple[int, ...]]) -> None:
  """Refuses a 3D face whose codes are not those that the estimator gives.

  Raises:
    UserError: one line with both sizes.
  """
  for name, shape in model.code_sizes.items():
    got = code_shapes.get(name, shape)
    if tuple(got) != tuple(shape):
      raise UserError(
        f"the 3D face takes {name} codes of shape {tuple(shape)}, the "
        f"estimator gives {tuple(got)}; change nets.estimator.outputs or "
        "nets.morphable"
      )


def read_codes(net: estimator_lib.Estimator, variables, image) -> dict:
  """Face codes of pictures, see `FaceReader.codes`.

  A net with `close` looks twice: at the picture for the five points, then at
  the square round those points for everything else, as DECA's code reads crops
  round a detector's landmarks. What it reads then hardly depends on the place
  and the size of the face.

  Args:
    net: the estimator.
    variables: {"params", "batch_stats", "codes"}; without "codes" the outputs
      are codes already.
    image: (b, h, w, 3) in [-1, 1].
  """
  layers = {k: v for k, v in variables.items() if k != "codes"}
  first = net.apply(layers, image)
  if not net.close:
    return codes_from_outputs(first, variables.get("codes"))
  box = face_crops.round_points(first["landmarks"], net.close)
  codes = read_square(net, variables, image, box)
  return codes | {"face": first["face"][..., 0]}


def read_square(net, variables, image, box, outside=None) -> dict:
  """Face codes read from one square of each picture.

  Args:
    net: the estimator.
    variables: as for `read_codes`.
    image: (b, h, w, 3) in [-1, 1].
    box: squares (b, 3), see `face_box`.
    outside: see `face_box.look`.

  Returns:
    Codes whose points and camera are those of the whole picture.
  """
  layers = {k: v for k, v in variables.items() if k != "codes"}
  seen = face_crops.look(image, box, net.input_size, outside)
  raw = net.apply(layers, seen)
  codes = codes_from_outputs(raw, variables.get("codes"))
  back = face_crops.outer(box)
  if POINTS5 in codes:
    codes[POINTS5] = face_crops.points_in(codes[POINTS5], back)
  codes["camera"] = face_crops.camera_in(codes["camera"], back)
  return codes


def codes_from_outputs(raw: Codes, statistics) -> dict:
  """Names, shapes and units of an estimator's raw outputs made whole."""
  raw = dict(raw)
  batch = raw["pose"].shape[0]
  points = raw.pop("landmarks", None)
  face = raw.pop("face", None)
  gaze = raw.get("gaze")
  # DECA reads no gaze: eyes stay straight.
  raw["gaze"] = jnp.zeros((batch, 2)) if gaze is None else gaze
  if statistics is not None:
    raw = destandardise(raw, statistics)
  if points is not None:
    raw[POINTS5] = points
  if face is not None:
    raw["face"] = face[..., 0]
  return raw


def morphable_maker(
  kind: str = "procedural",
  path: str = "",
  texture: int = 128,
  albedo_path: str = "",
  landmark_path: str = "",
  template_path: str = "",
  codes: Mapping[str, int] | None = None,
):
  """A function that makes the 3D face's variables, {"params": Morphable}.

  Args:
    kind: "procedural", "flame" or "ict".
    path: file (flame) or folder (ict).
    texture: side of the procedural head's albedo texture, at most 128.
    albedo_path: FLAME's or the BFM's albedo file (flame).
    landmark_path: FLAME's landmark embedding (flame).
    template_path: mesh with the texture layout (flame).
    codes: how many coefficients to keep (flame): {"shape", "expression",
      "albedo"}; by default as many as DECA reads.
  """

  def read():
    if kind == "flame":
      files = {
        "albedo_path": albedo_path or None,
        "landmark_path": landmark_path or None,
        "template_path": template_path or None,
      }
      sizes = {f"n_{name}": count for name, count in (codes or {}).items()}
      return {"params": morphable_lib.load(kind, path, **files, **sizes)}
    if kind != "procedural":
      return {"params": morphable_lib.load(kind, path)}
    model = morphable_lib.load(kind, texture_size=texture)
    # The directions that the synthetic heads' albedo codes are written in.
    mean, basis = albedo_basis.load_albedo_basis()
    mean = jnp.asarray(mean, jnp.float32)
    basis = jnp.asarray(basis, jnp.float32)
    mean = jax.image.resize(mean, (texture, texture, 3), "linear")
    basis = jax.image.resize(basis, (len(basis), texture, texture, 3), "linear")
    return {"params": model_lib.with_albedo(model, mean, basis)}

  @functools.cache
  def make():
    # Files are read once, and their arrays are arrays also when first asked
    # for while JAX traces.
    with jax.ensure_compile_time_eval(), as_user_error("nets.morphable"):
      return read()

  return make
