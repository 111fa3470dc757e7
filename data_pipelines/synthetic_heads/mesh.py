"""The posable mesh of a whole picture, shared by all identities."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.synthetic_heads import accessories as acc
from data_pipelines.synthetic_heads import clothes, geometry, hair
from data_pipelines.synthetic_heads.bake import Bundle
from faceedit_jax.morphable import model, procedural


@flax.struct.dataclass
class Static:
  """Arrays that never change, kept out of the compiled code's constants."""

  model: model.Morphable  # the whole picture as one posable mesh
  around: jax.Array  # (W, 8) triangles round each welded vertex
  weld: jax.Array  # (V,) vertex -> its first twin
  before: jax.Array  # (V,) neighbour towards the root of a hair
  after: jax.Array  # (V,) neighbour towards its tip
  corner: jax.Array  # (F, 7) atlas uv of the corners, part


def _welds(world):
  """First twin of every vertex: seams and poles are one point in space."""
  weld = np.arange(world.vertices)
  lattices = {
    "hair": (hair.ROWS, hair.COLUMNS, True),
    "bun": (acc.BUN_ROWS, acc.BUN_COLUMNS, True),
    "hat": (acc.HAT_ROWS, acc.HAT_COLUMNS, True),
    "torso": (
      clothes.TORSO_ROWS,
      clothes.TORSO_COLUMNS,
      False,
    ),
    "collar": (
      clothes.COLLAR_ROWS,
      clothes.COLLAR_COLUMNS,
      False,
    ),
  }
  for name, (rows, columns, pole) in lattices.items():
    ids = np.arange(rows * columns).reshape(rows, columns)
    ids = ids + world.spans[name].start
    twin = ids.copy()
    twin[:, -1] = ids[:, 0]
    if pole:
      twin[0] = ids[0, 0]
    if name == "bun":
      twin[-1] = ids[-1, 0]
    weld[ids] = twin
  return weld


def _strand_neighbours(world):
  before = np.arange(world.vertices)
  after = before.copy()
  rows, columns = hair.ROWS, hair.COLUMNS
  ids = np.arange(rows * columns).reshape(rows, columns)
  ids = ids + world.spans["hair"].start
  after[ids[:-1]], before[ids[1:]] = ids[1:], ids[:-1]
  rows, columns = acc.BUN_ROWS, acc.BUN_COLUMNS
  ids = np.arange(rows * columns).reshape(rows, columns)
  ids = ids + world.spans["bun"].start
  after[ids[:, :-1]], before[ids[:, 1:]] = ids[:, 1:], ids[:, :-1]
  return before, after


@functools.cache
def static() -> Static:
  """The posable mesh of a whole picture; cached per process."""
  with jax.ensure_compile_time_eval():
    world = geometry.build_world()
    head = procedural.procedural_model()
    extra = world.vertices - head.v_template.shape[0]
    moves = np.asarray(head.shapedirs)[..., head.n_shape :]
    follows = np.where(world.parent[:, None, None] >= 0, moves[world.parent], 0)
    weld = _welds(world)
    before, after = _strand_neighbours(world)
    around = geometry.vertex_faces(weld[world.faces], world.vertices)
    uv = world.uv.reshape(-1, 6)
    whole = head.replace(
      v_template=jnp.zeros((world.vertices, 3)),
      shapedirs=jnp.asarray(follows),
      posedirs=jnp.zeros((36, world.vertices * 3)),
      j_regressor=jnp.pad(head.j_regressor, ((0, 0), (0, extra))),
      weights=jnp.zeros((world.vertices, 5)),
      faces=jnp.asarray(world.faces),
      n_shape=0,
    )
    part = world.face_part[:, None].astype(np.float32)
    return Static(
      model=whole,
      around=jnp.asarray(around),
      weld=jnp.asarray(weld),
      before=jnp.asarray(before),
      after=jnp.asarray(after),
      corner=jnp.asarray(np.concatenate([uv, part], 1)),
    )


def pose_vertices(fixed: Static, bundle: Bundle, frame: dict) -> jax.Array:
  """Posed vertices (V, 3) in metres.

  The head's own vertices come out exactly as `morphable.model.vertices` gives
  them for the codes of the frame.
  """
  mesh = fixed.model.replace(
    v_template=bundle.rest * procedural.CM, weights=bundle.weights
  )
  pose = jnp.concatenate([frame["pose"], frame["jaw"]])
  points, _ = model.vertices(
    mesh,
    jnp.zeros((1, 0)),
    frame["expression"][None],
    pose[None],
    frame["gaze"][None],
  )
  return points[0]
