"""Files in the layouts of the published ones, made of our own head and nets.

  python -m tests.published_files FOLDER

FOLDER/weights has FLAME, its albedo, landmarks and mesh, and converted weights
of DECA, ArcFace and the nets that score; FOLDER/videos has clips as VoxCeleb1
has them. With these the path of the paper can be walked without a licence, see
README.
"""

import pathlib
import pickle
import sys

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import scipy.io
from PIL import Image

from faceedit_jax import recipes
from faceedit_jax.core import config as config_lib
from faceedit_jax.core.config import ConfigDict
from faceedit_jax.models.faces import deep3d
from faceedit_jax.models.perception import inception
from faceedit_jax.morphable import model as model_lib
from faceedit_jax.morphable import procedural
from tests import video_set

CONFIG = "configs/difffae.py:voxceleb_smoke"
# What an untrained DECA is made to say of every picture, give or take: a head
# of ordinary size in the middle, lit from all sides.
CAMERA, AMBIENT = (6.0, 0.0, -0.02), 3.0


def make_flame_files(folder: pathlib.Path, texture: int = 16) -> dict[str, str]:
  """Writes the procedural head as FLAME's files; {option: path}.

  It has as many directions as FLAME; those that the head lacks do nothing.
  """
  folder.mkdir(parents=True, exist_ok=True)
  m = procedural.procedural_model("light", texture)
  identity = np.zeros((*m.v_template.shape, 300), np.float32)
  identity[..., : m.n_shape] = m.shapedirs[..., : m.n_shape]
  expression = np.zeros((*m.v_template.shape, 100), np.float32)
  expression[..., : m.n_expression] = m.shapedirs[..., m.n_shape :]
  arrays = {
    "v_template": np.asarray(m.v_template),
    "shapedirs": np.concatenate([identity, expression], -1),
    "posedirs": np.asarray(m.posedirs).T.reshape(*m.v_template.shape, 36),
    "J_regressor": np.asarray(m.j_regressor),
    "weights": np.asarray(m.weights),
    "kintree_table": np.stack([np.maximum(m.parents, 0), np.arange(5)]),
    "f": np.asarray(m.faces),
  }
  paths = {
    "path": folder / "generic_model.pkl",
    "albedo_path": folder / "FLAME_albedo_from_BFM.npz",
    "landmark_path": folder / "landmark_embedding.npz",
    "template_path": folder / "head_template.obj",
  }
  paths["path"].write_bytes(pickle.dumps(arrays, protocol=2))
  # Stored at twice the side, as blue, green, red.
  stored = lambda a: np.repeat(np.repeat(a, 2, -3), 2, -2)[..., ::-1]  # noqa: E731
  mean = np.asarray(model_lib.albedo(m, jnp.zeros((1, m.n_albedo))))[0]
  basis = mean * np.random.default_rng(0).normal(0, 0.02, (50, 1, 1, 3))
  np.savez(
    paths["albedo_path"],
    MU=stored(mean).reshape(1, -1),
    PC=stored(basis).reshape(len(basis), -1).T,
  )
  _write_landmarks(paths["landmark_path"], m)
  uv = [f"vt {x:.6f} {y:.6f}" for x, y in np.asarray(m.uv)]
  corners = np.stack([m.faces, m.uv_faces], -1) + 1
  triangles = ["f " + " ".join(f"{v}/{t}" for v, t in c) for c in corners]
  vertices = ["v {:.6f} {:.6f} {:.6f}".format(*v) for v in m.v_template]
  text = "\n".join([*vertices, *uv, *triangles]) + "\n"
  paths["template_path"].write_text(text)
  return {name: str(path) for name, path in paths.items()}


def _write_landmarks(path: pathlib.Path, m: model_lib.Morphable) -> None:
  """The 68 points as corners of triangles."""
  points = m.landmarks68
  nearest = np.asarray(points.vertices)[
    np.arange(len(points.vertices)), np.asarray(points.weights).argmax(1)
  ]
  faces = np.asarray(m.faces)
  ids, corner = zip(
    *(np.argwhere(faces == vertex)[0] for vertex in nearest), strict=True
  )
  np.savez(
    path,
    full_lmk_faces_idx=np.asarray(ids)[None],
    full_lmk_bary_coords=np.eye(3)[np.asarray(corner)][None],
  )


def overridden(folder: pathlib.Path, **more) -> ConfigDict:
  """The config of the rehearsal, with the files of a folder."""
  config = config_lib.load(CONFIG)
  changed = {
    "nets.estimator.weights": folder / "deca.safetensors",
    "nets.detail.encoder_weights": folder / "deca_detail_encoder.safetensors",
    "nets.detail.decoder_weights": folder / "deca_detail_decoder.safetensors",
    "nets.detail.mask_path": folder / "uv_face_eye_mask.png",
    "nets.detail.fixed_path": folder / "fixed_displacement_256.npy",
    "nets.identity.weights": folder / "arcface.safetensors",
    "nets.morphable.path": folder / "generic_model.pkl",
    "nets.morphable.albedo_path": folder / "FLAME_albedo_from_BFM.npz",
    "nets.morphable.landmark_path": folder / "landmark_embedding.npz",
    "nets.morphable.template_path": folder / "head_template.obj",
    **more,
  }
  return config_lib.override(config, [f"{k}={v}" for k, v in changed.items()])


def make_weights(folder: pathlib.Path, config: ConfigDict) -> None:
  """Writes untrained nets where the config's sections of `nets` want them."""
  options = config.stage.denoiser.recipe.to_dict()
  recipe = recipes.build(
    options.pop("name"),
    nets=config.nets,
    options=options,
    image_size=config.image_size,
    dtype="float32",
  )
  make_detail_files(folder, config.nets.detail)
  nets = jax.jit(lambda: recipe.face.init(jax.random.key(0), 64))()
  last = nets["estimator"]["params"]["output_layer"]
  bias = []
  for name, size in config.nets.estimator.outputs.items():
    part = np.zeros(size, np.float32)
    if name == "camera":
      part[:] = CAMERA
    if name == "light":
      part[:3] = AMBIENT
    bias.append(part)
  last["kernel"] = 0.2 * last["kernel"]
  last["bias"] = np.concatenate(bias)
  paths = {
    "estimator": config.nets.estimator.weights,
    "identity": config.nets.identity.weights,
    "detail_encoder": config.nets.detail.encoder_weights,
    "detail_decoder": config.nets.detail.decoder_weights,
  }
  for name, path in paths.items():
    flat = flax.traverse_util.flatten_dict(jax.device_get(nets[name]), sep="/")
    _save(folder / pathlib.Path(path).name, flat)


def make_detail_files(folder: pathlib.Path, section) -> None:
  """A face in the middle of the texture that wrinkles may move."""
  side = 8 * 2 ** (len(section.widths) - 1)
  y, x = np.mgrid[:side, :side] / side - 0.5
  mask = np.uint8(255 * (x**2 + y**2 < 0.16))
  path = folder / pathlib.Path(section.mask_path).name
  Image.fromarray(np.stack([mask] * 3, -1)).save(path)
  np.save(
    folder / pathlib.Path(section.fixed_path).name,
    1e-3 * np.cos(20 * x) * np.cos(20 * y),
  )


def make_eval_nets(folder: pathlib.Path) -> None:
  """Untrained nets of FID and of Deep3DFaceRecon at their full sizes."""
  rng = np.random.default_rng(0)
  for name, net, side in (
    ("inception", inception.Inception(), 299),
    ("deep3d", deep3d.Deep3D(), deep3d.SIZE),
  ):
    picture = jax.ShapeDtypeStruct((1, side, side, 3), "float32")
    shapes = jax.eval_shape(net.init, jax.random.key(0), picture)
    flat = flax.traverse_util.flatten_dict(shapes, sep="/")
    _save(
      folder / f"{name}.safetensors",
      {path: _drawn(path, leaf.shape, rng) for path, leaf in flat.items()},
    )
  # Eyes, nose tip and corners of the mouth, about as far apart as theirs.
  points = [[-1, 1, 0], [1, 1, 0], [0, 0, 1], [-0.8, -1, 0.4], [0.8, -1, 0.4]]
  scipy.io.savemat(
    folder / "similarity_Lm3D_all.mat", {"lm": 0.3 * np.asarray(points)}
  )


def _drawn(path, shape, rng) -> np.ndarray:
  """An array that keeps activations near one."""
  if path.endswith(("kernel",)):
    fan = max(1, int(np.prod(shape[:-1])))
    return rng.normal(0, (2 / fan) ** 0.5, shape).astype(np.float32)
  whole = path.endswith(("scale", "var"))
  return np.full(shape, float(whole), np.float32)


def _save(path: pathlib.Path, flat) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {name: np.ascontiguousarray(value) for name, value in flat.items()}
  safetensors.numpy.save_file(arrays, path)


def main() -> int:
  """Entry point."""
  folder = pathlib.Path(sys.argv[1])
  make_flame_files(folder / "weights")
  make_weights(folder / "weights", overridden(folder / "weights"))
  make_eval_nets(folder / "weights")
  video_set.make_video_set(
    folder / "videos", people=6, clips=2, frames=4, size=64
  )
  print(f"wrote {folder}")
  return 0


if __name__ == "__main__":
  raise SystemExit(main())
