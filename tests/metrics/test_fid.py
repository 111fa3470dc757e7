"""FID on pictures: streaming, devices, resizing rules, saved references."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from faceedit_jax.metrics import fid, frechet
from faceedit_jax.models.perception.inception import Inception
from tests.models.counts import array, shapes

NET = Inception(width=2, classes=2)


@pytest.fixture(scope="module")
def variables():
  """Weights that let a signal through to the last layer."""
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    if path[-1].key == "kernel":
      spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      return jnp.asarray(spread * rng.normal(size=leaf.shape), jnp.float32)
    return jnp.full(leaf.shape, {"scale": 1.2, "var": 1.0}.get(path[-1].key, 0))

  wanted = shapes(NET, array(1, 299, 299, 3))
  return jax.tree_util.tree_map_with_path(draw, wanted)


@dataclasses.dataclass(frozen=True)
class Corner:
  """Stands in for the network: tells what it was shown."""

  width: int = 1
  tensorflow: bool = True

  def apply(self, variables, x):
    where = ((0, 0), (0, 150), (149, 149), (298, 298))
    seen = [x[:, i, j] for i, j in where]
    seen += [x.mean((1, 2)), x.min((1, 2)), x.max((1, 2))]
    out = jnp.concatenate(seen, -1) + variables
    return jnp.pad(out, ((0, 0), (0, 64 - out.shape[1]))), None


def reader(rule="pytorch-fid", **more):
  net = Corner(tensorflow=rule not in fid.TORCHVISION_RULES)
  return fid.Reader(net, jnp.zeros(()), rule, **more)


def pictures(rng, n=7, side=20):
  return rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def test_batches_give_the_same_statistics(rng, variables):
  """On eight devices; batches of 3, of 5 and all at once."""
  shade = np.linspace(0, 1, 11)[:, None, None, None]
  images = (pictures(rng, 11) * shade).astype(np.uint8)
  read = fid.Reader(NET, variables, batch=1)
  assert len(jax.local_devices()) == 8 and read._block == 8
  states = []
  for size in (3, 5, 11):
    state = read.empty()
    for first in range(0, 11, size):
      state = state.add(read(images[first : first + size]))
    states.append(state)
  assert [s.count for s in states] == [11, 11, 11]
  spread = np.sqrt(states[0].covariance.diagonal())
  assert np.median(spread) > 0.01
  for state in states[1:]:
    for name in ("mean", "covariance"):
      wanted = getattr(states[0], name)
      np.testing.assert_allclose(
        getattr(state, name), wanted, atol=1e-6 * abs(wanted).max()
      )
  # The features are those of the network, picture by picture.
  one = fid.Reader(NET, variables, batch=2, devices=jax.devices()[:1])
  np.testing.assert_allclose(
    one(images[4:7]), read(images)[4:7], atol=1e-5, rtol=1e-5
  )
  direct = fid.Statistics(
    read(images).mean(0, np.float64), np.cov(read(images), rowvar=False), 11
  )
  assert fid.fid(states[0], direct) < 1e-8 * np.trace(direct.covariance)


def test_blocks_are_shared_out(rng):
  read = reader(batch=2)
  x = jax.device_put(np.zeros((16, 20, 20, 3), np.uint8), read._rows)
  out = read._run(jnp.zeros(()), x)
  assert len(out.sharding.device_set) == 8
  assert {s.data.shape[0] for s in out.addressable_shards} == {2}


def test_no_pictures_no_features(rng):
  assert reader()(pictures(rng, 0)).shape == (0, 64)


def test_pytorch_fid_reads_bilinear_pictures(rng):
  """Corners, by hand: centres at half pixels, edges held, no antialiasing."""
  for side in (20, 400):
    image = pictures(rng, 2, side)
    seen = reader()(image)

    def at(row, column, x=image, side=side):
      place = (np.array([row, column]) + 0.5) * side / 299 - 0.5
      place = np.clip(place, 0, side - 1)
      low = np.minimum(place.astype(int), side - 2)
      (a, b), (i, j) = place - low, low
      mixed = (1 - a) * ((1 - b) * x[:, i, j] + b * x[:, i, j + 1])
      mixed += a * ((1 - b) * x[:, i + 1, j] + b * x[:, i + 1, j + 1])
      return mixed / 255 * 2 - 1

    # Places are float32: 400 pixels times 2^-24, times a contrast of 2.
    for k, (i, j) in enumerate(((0, 0), (0, 150), (149, 149), (298, 298))):
      np.testing.assert_allclose(
        seen[:, 3 * k : 3 * k + 3], at(i, j), atol=1e-4
      )


def test_clean_fid_reads_pillows_float_pictures(rng):
  image = pictures(rng, 1, 400)
  seen = reader("clean-fid")(image)
  channels = [
    np.asarray(
      Image.fromarray(image[0, ..., c].astype(np.float32)).resize(
        (299, 299), Image.Resampling.BICUBIC
      )
    )
    for c in range(3)
  ]
  wanted = (np.stack(channels, -1).clip(0, 255) - 128) / 128
  np.testing.assert_allclose(seen[0, :3], wanted[0, 0], atol=1e-6)
  np.testing.assert_allclose(seen[0, 6:9], wanted[149, 149], atol=1e-6)
  assert np.abs(seen - reader()(image))[:, :12].max() > 0.1
  # Overshoot beside an edge is cut off: nothing leaves the range.
  edge = np.zeros((1, 64, 64, 3), np.uint8)
  edge[:, :, 32:] = 255
  seen = reader("clean-fid")(edge)[0]
  assert seen[15:18].min() == -1 and seen[18:21].max() == 127 / 128


@pytest.mark.parametrize(
  "rule, sides", [("stargan-v2", (256, 299)), ("l2m-gan", (299,))]
)
def test_rules_of_torchvisions_network(rng, rule, sides):
  """In ImageNet's units, as data loader and metrics of the two have them."""
  image = pictures(rng, 1, 64)
  seen = reader(rule)(image)
  made = Image.fromarray(image[0])
  for side in sides:
    made = made.resize((side, side), Image.Resampling.BILINEAR)
  wanted = np.asarray(made) / 255 - np.array([0.485, 0.456, 0.406])
  wanted = wanted / np.array([0.229, 0.224, 0.225])
  np.testing.assert_allclose(seen[0, :3], wanted[0, 0], atol=1e-5)
  np.testing.assert_allclose(seen[0, 6:9], wanted[149, 149], atol=1e-5)
  np.testing.assert_allclose(seen[0, 12:15], wanted.mean((0, 1)), atol=1e-4)


def test_rules_belong_to_networks():
  weights = jnp.zeros(())
  with pytest.raises(ValueError, match="one of stargan-v2, l2m-gan with"):
    fid.Reader(Corner(tensorflow=False), weights, "pytorch-fid")
  with pytest.raises(ValueError, match="wanted one of pytorch-fid, clean-fid"):
    fid.Reader(Corner(), weights, "stargan-v2")


def test_unknown_rules_are_refused():
  with pytest.raises(ValueError, match="wanted one of pytorch-fid, clean-fid"):
    reader("bicubic")


def test_references_are_pytorch_fids_files(rng, tmp_path):
  features = rng.normal(size=(9, 4))
  state = frechet.FeatureState.of(features)
  path = tmp_path / "reference.npz"
  fid.save(path, state)
  with np.load(path) as file:  # as pytorch-fid reads it
    mean, covariance = file["mu"][:], file["sigma"][:]
  np.testing.assert_allclose(mean, features.mean(0))
  np.testing.assert_allclose(covariance, np.cov(features, rowvar=False))
  assert fid.load(path).count == 9
  assert fid.fid(state, fid.load(path)) == pytest.approx(0, abs=1e-9)
  # And as pytorch-fid writes it: no count.
  np.savez(path, mu=mean, sigma=covariance)
  read = fid.load(path)
  assert read.count is None
  assert "9 pictures against an unknown number" in fid.describe(
    state, read, "clean-fid"
  )


def test_the_count_is_always_stated(rng):
  few = frechet.FeatureState.of(rng.normal(size=(4, 4)))
  many = frechet.FeatureState.of(rng.normal(size=(50, 4)))
  text = fid.describe(many, many, "pytorch-fid")
  assert text == (
    "pytorch-fid (bilinear to 299 without antialiasing), 50 pictures against 50"
  )
  assert "fewer than the 4 features need" in fid.describe(
    few, many, "pytorch-fid"
  )


@pytest.mark.parametrize(
  "arrays, message",
  [
    ({"mu": np.zeros(3)}, r"no \['sigma'\]"),
    ({"mu": np.zeros(3), "sigma": np.zeros((2, 2))}, r"\(3,\) and \(2, 2\)"),
    (b"PK\x03\x04 nothing", "cannot be read"),
    (np.zeros(3), "cannot be read"),
  ],
)
def test_damaged_references(tmp_path, arrays, message):
  path = tmp_path / "reference.npz"
  if isinstance(arrays, bytes):
    path.write_bytes(arrays)
  elif isinstance(arrays, np.ndarray):
    with path.open("wb") as file:
      np.save(file, arrays)
  else:
    np.savez(path, **arrays)
  with pytest.raises(ValueError, match=message):
    fid.load(path)


def test_features_of_another_network_are_refused(rng):
  a, b = (frechet.FeatureState.of(rng.normal(size=(5, d))) for d in (3, 4))
  with pytest.raises(ValueError, match="another network"):
    fid.fid(a, b)
