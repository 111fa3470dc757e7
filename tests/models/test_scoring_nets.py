"""Networks that measure: Inception, ResNet-18, and Deep3DFaceRecon."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from faceedit_jax import convert
from faceedit_jax.core.errors import UserError
from faceedit_jax.models.faces import deep3d
from faceedit_jax.models.perception import feature_resnet, inception
from faceedit_jax.models.perception.resnet import ResNet
from faceedit_jax.nn.layers import resize
from faceedit_jax.weights import keymap, l2m, perception
from tests.models import hashed_weights
from tests.models.counts import array, parameters, randomised
from tests.parity.harness import check_structure

RECORDED = pathlib.Path(__file__).with_name("inception_reference.npz")


def test_published_sizes():
  # torchvision's inception_v3 without the auxiliary head, 1008 classes.
  image = array(1, 299, 299, 3)
  assert parameters(inception.Inception(), image) == 23_850_960
  # ResNet-50 without its last layer, and 257 rows of 2048 + 1.
  image = array(1, 224, 224, 3)
  assert parameters(deep3d.Deep3D(), image) == 23_508_032 + 257 * 2049


def recorded_state(recorded):
  shapes = json.loads(str(recorded["shapes"]))
  return {k: hashed_weights.weight(k, tuple(s)) for k, s in shapes.items()}


def test_inception_is_the_one_of_pytorch_fid():
  """Against torchvision's, changed in three places; tests/models/record_*."""
  recorded = np.load(RECORDED)
  net = inception.Inception(width=4, classes=12)
  variables = keymap.convert(recorded_state(recorded), perception.inception)
  pictures = jnp.asarray(hashed_weights.pictures(139))
  check_structure(
    variables, jax.eval_shape(net.init, jax.random.key(0), pictures)
  )

  @jax.jit
  def run(variables, pictures):
    return net.apply(
      variables,
      pictures,
      capture_intermediates=lambda m, _: isinstance(m, inception.Mixed),
    )

  (features, logits), seen = run(variables, pictures)
  found = {"features": features, "logits": logits}
  for name, calls in seen["intermediates"].items():
    found[name] = calls["__call__"][0][..., ::8]
  own = {"own_features", "own_logits"}
  for name in set(recorded.files) - {"shapes"} - own:
    assert found[name].shape == recorded[name].shape
    np.testing.assert_allclose(
      found[name], recorded[name], atol=3e-6, rtol=0, err_msg=name
    )


def test_torchvisions_own_inception():
  """Averages count the padding, and the last block takes one, too."""
  recorded = np.load(RECORDED)
  state = recorded_state(recorded)
  state["AuxLogits.fc.weight"] = np.zeros((12, 96), np.float32)
  variables = keymap.convert(state, perception.inception_torchvision)
  pictures = jnp.asarray(hashed_weights.pictures(139))
  net = inception.Inception(width=4, classes=12, tensorflow=False)
  features, logits = jax.jit(net.apply)(variables, pictures)
  for found, name in ((features, "features"), (logits, "logits")):
    wanted = recorded[f"own_{name}"]
    np.testing.assert_allclose(found, wanted, atol=3e-6, rtol=0)
    assert np.abs(wanted - recorded[name]).max() > 1e-3
  image = array(1, 299, 299, 3)
  whole = inception.Inception(classes=1000, tensorflow=False)
  # inception_v3's 27,161,264 without the helping classifier.
  assert parameters(whole, image) == 23_834_568


@pytest.mark.parametrize("classes", [None, 12])
def test_resnet_is_that_of_torchvision(classes):
  """At an odd size, so that rims count."""
  recorded = np.load(RECORDED.with_name("resnet_reference.npz"))
  net = feature_resnet.FeatureResNet(classes=classes)
  variables = keymap.convert(recorded_state(recorded), l2m.resnet18(net))
  found = jax.jit(net.apply)(variables, hashed_weights.pictures(67))
  wanted = recorded["features" if classes is None else "logits"]
  assert wanted.std() > 0.05
  np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)


def test_pooling_leaves_padding_out_and_ends_in_a_maximum():
  """A flat map stays flat to the rim; the last block takes the largest."""
  flat = jnp.full((1, 5, 5, 8), 2.0)
  spike = jnp.zeros((1, 5, 5, 8)).at[:, 2, 2].set(9.0)
  for pool, of_spike in (("average", 1.0), ("maximum", 9.0)):
    net = inception.Mixed(((pool,),), 32)
    np.testing.assert_allclose(net.apply({}, flat), 2.0, rtol=1e-6)
    np.testing.assert_allclose(net.apply({}, spike)[0, 1, 1], of_spike)
  kinds = [b[-1][0] for n, b in inception._BLOCKS.items() if n != "Mixed_7c"]
  assert set(kinds) == {"average", "halve"}
  assert inception._BLOCKS["Mixed_7c"][-1][0] == "maximum"


def test_small_pictures_are_refused():
  net = inception.Inception(width=2)
  with pytest.raises(ValueError, match="75 pixels or more"):
    jax.eval_shape(net.init, jax.random.key(0), array(1, 74, 80, 3))


@pytest.mark.parametrize("side", [64, 400])
def test_resize_is_torchs(side, rng):
  torch = pytest.importorskip("torch")
  x = rng.uniform(size=(1, side, side + 9, 3)).astype(np.float32)
  wanted = torch.nn.functional.interpolate(
    torch.from_numpy(x).permute(0, 3, 1, 2),
    size=(299, 299),
    mode="bilinear",
    align_corners=False,
  )
  found = resize(jnp.asarray(x), 299, 299, antialias=False)
  np.testing.assert_allclose(
    found, wanted.permute(0, 2, 3, 1).numpy(), atol=1e-6
  )


# Deep3DFaceRecon.


def torch_state(net, rng):
  """Published keys and shapes of a narrow `net_recon`."""
  state = {}
  wanted = jax.eval_shape(net.init, jax.random.key(0), array(1, 64, 64, 3))
  for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
    _, *names = (key.key for key in path)
    value = rng.normal(size=leaf.shape).astype(np.float32) * 0.2
    if names[0].startswith("head_"):
      name = f"final_layers.{names[0][5:]}"
      if names[1] == "kernel":
        value = value.T[:, :, None, None]
    else:
      _, *middle = names[:-1]
      name = ".".join(["backbone", *middle]).replace("_", ".", 1)
      name = name.replace("bn_shortcut", "downsample.1")
      name = name.replace("shortcut", "downsample.0")
      if names[-1] == "kernel":
        value = value.transpose(3, 2, 0, 1)
    leaf = {"kernel": "weight", "scale": "weight", "mean": "running_mean"}
    leaf |= {"var": "running_var", "bias": "bias"}
    if names[-1] == "var":
      value = 1 + abs(value)
    state[f"{name}.{leaf[names[-1]]}"] = np.ascontiguousarray(value)
  return state


def test_deep3d_takes_the_published_keys(rng):
  net = deep3d.Deep3D((1, 2, 1, 1), 4)
  state = torch_state(net, rng)
  for key in (
    "backbone.conv1.weight",
    "backbone.bn1.running_var",
    "backbone.layer2.1.conv3.weight",
    "backbone.layer4.0.downsample.0.weight",
    "backbone.layer4.0.downsample.1.running_mean",
    "final_layers.6.bias",
  ):
    assert key in state, key
  assert state["final_layers.1.weight"].shape == (64, 128, 1, 1)
  state["backbone.bn1.num_batches_tracked"] = np.array(7)
  variables = keymap.convert(state, perception.deep3d)
  image = jnp.asarray(rng.uniform(-1, 1, (2, 64, 64, 3)), jnp.float32)
  check_structure(variables, jax.eval_shape(net.init, jax.random.key(0), image))
  found = jax.jit(net.apply)(variables, image)
  # The trunk sees [0, 1]; the heads lie side by side in their order.
  trunk = ResNet((1, 2, 1, 1), 4)
  inner = {k: v["encoder"] for k, v in variables.items()}
  pooled = np.asarray(jax.jit(trunk.apply)(inner, (image + 1) / 2))
  heads = [
    pooled @ state[f"final_layers.{k}.weight"][:, :, 0, 0].T
    + state[f"final_layers.{k}.bias"]
    for k in range(7)
  ]
  np.testing.assert_allclose(found, np.concatenate(heads, -1), atol=1e-5)


def test_coefficients_have_their_places():
  numbers = jnp.arange(257.0)[None]
  parts = deep3d.split(numbers)
  first = {name: float(part[0, 0]) for name, part in parts.items()}
  assert first == dict(id=0, exp=80, tex=144, angle=224, gamma=227, trans=254)
  assert {k: v.shape[1] for k, v in parts.items()} == deep3d.COEFFICIENTS


@pytest.mark.parametrize("kind", ["inception", "deep3d"])
def test_unknown_keys_are_named(kind, tmp_path):
  path = tmp_path / "net.safetensors"
  state = {"backbone.fc9.weight": np.ones(1, np.float32)}
  safetensors.numpy.save_file(state, path)
  with pytest.raises(UserError, match=r"1 unexpected \(backbone.fc9.weight\)"):
    convert.convert(kind, path, {})


STANDARD = np.array(
  [
    [-0.31, 0.29, 0.13],
    [0.31, 0.29, 0.13],
    [0.0, 0.0, 0.55],
    [-0.25, -0.37, 0.2],
    [0.25, -0.37, 0.2],
  ]
)


def seen_from(scale, middle):
  """The standard points, facing, in pixels y down of a picture."""
  x = middle[0] + scale * STANDARD[:, 0]
  y = middle[1] - scale * STANDARD[:, 1]
  return np.stack([x, y], axis=-1)


def test_scale_and_shift_of_a_known_camera(rng):
  turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
  many = rng.normal(size=(9, 3))
  points = 57.0 * many @ turn[:2].T + np.array([40.0, 70.0])
  scale, shift = deep3d.scaled_projection(points, many)
  np.testing.assert_allclose(scale, 57.0, rtol=1e-9)
  np.testing.assert_allclose(shift, [40.0, 70.0], rtol=1e-9)


def test_the_crop_puts_the_standard_face_in_its_middle():
  """Scale 102 per unit, the origin of the points at the middle."""
  scale, middle = 51.0, np.array([120.0, 90.0])
  points = seen_from(scale, middle)
  image = np.zeros((200, 300, 3), np.uint8)
  image[86:94, 116:124] = (255, 128, 0)  # 8 pixels round the middle
  made = deep3d.crop(image, points, STANDARD)
  bright = np.argwhere(made[..., 0] > 127)
  assert made.shape == (224, 224, 3)
  # Twice as large, so 16 pixels a side. The published arithmetic is a pixel
  # of the picture off, and cuts off fractions.
  np.testing.assert_allclose(np.ptp(bright, axis=0) + 1, [16, 16], atol=1)
  np.testing.assert_allclose(bright.mean(0), [111.5, 111.5], atol=3)


def test_the_crop_is_the_published_arithmetic(rng):
  """Step by step as align_img says, from points in its own coordinates."""
  image = rng.integers(0, 255, (180, 240, 3), "uint8")
  points = seen_from(80.0, (101.3, 77.9)) + rng.normal(size=(5, 2))
  theirs = points - 0.5
  theirs[:, 1] = 180 - 1 - theirs[:, 1]
  a, b = np.zeros((10, 8)), theirs.reshape(10)
  a[0::2, :3], a[0::2, 3], a[1::2, 4:7], a[1::2, 7] = STANDARD, 1, STANDARD, 1
  k = np.linalg.lstsq(a, b, rcond=None)[0]
  s = 102 / ((np.linalg.norm(k[:3]) + np.linalg.norm(k[4:7])) / 2)
  w, h = int(240 * s), int(180 * s)
  left = int(w / 2 - 112 + (k[3] - 120) * s)
  up = int(h / 2 - 112 + (90 - k[7]) * s)
  wanted = Image.fromarray(image).resize((w, h), Image.Resampling.BICUBIC)
  wanted = wanted.crop((left, up, left + 224, up + 224))
  np.testing.assert_array_equal(
    deep3d.crop(image, points, STANDARD), np.asarray(wanted)
  )


def test_what_lies_outside_is_black():
  image = np.full((100, 100, 3), 200, np.uint8)
  made = deep3d.crop(image, seen_from(30, (5.0, 5.0)), STANDARD)
  assert not made[:50, :50].any() and (made[140:180, 140:180] == 200).all()


def test_points_without_likeness_are_refused():
  image = np.zeros((50, 50, 3), np.uint8)
  with pytest.raises(ValueError, match="no likeness to a face"):
    deep3d.crop(image, np.full((5, 2), 20.0), STANDARD)
  with pytest.raises(ValueError, match=r"\(5, d\) or \(68, d\)"):
    deep3d.crop(image, np.zeros((7, 2)), STANDARD)


def test_five_of_68_points(rng):
  points = rng.normal(size=(68, 3))
  found = deep3d.five_points(points)
  np.testing.assert_allclose(found[0], (points[36] + points[39]) / 2)
  np.testing.assert_allclose(found[1], (points[42] + points[45]) / 2)
  np.testing.assert_allclose(found[2:], points[[30, 48, 54]])
  np.testing.assert_array_equal(deep3d.five_points(found), found)


@pytest.mark.parametrize("suffix", [".mat", ".npy", ".txt"])
def test_standard_points_from_files(tmp_path, rng, suffix):
  points, path = rng.normal(size=(68, 3)), tmp_path / f"points{suffix}"
  if suffix == ".mat":
    import scipy.io

    scipy.io.savemat(path, {"lm": points})
  elif suffix == ".npy":
    np.save(path, points)
  else:
    np.savetxt(path, points)
  np.testing.assert_allclose(
    deep3d.read_standard_points(path), deep3d.five_points(points), atol=1e-12
  )
  with pytest.raises(ValueError, match="cannot be read"):
    deep3d.read_standard_points(tmp_path / f"absent{suffix}")


def test_a_face_alone_is_the_face_of_a_batch(rng):
  net = deep3d.Deep3D((1, 1, 1, 1), 4)
  images = jnp.asarray(rng.uniform(-1, 1, (3, 64, 64, 3)), jnp.float32)
  variables = randomised(net, rng, images)
  run = jax.jit(net.apply)
  every = run(variables, images)
  for i in range(3):
    alone = run(variables, images[i : i + 1])
    np.testing.assert_allclose(every[i], alone[0], atol=1e-5)
