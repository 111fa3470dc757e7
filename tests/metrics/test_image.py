"""Picture measures against recordings, by hand, and against direct sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceedit_jax.metrics import identity, image, mean, regions


@pytest.mark.shared
def test_recorded_similarity(shared):
  z = np.load(shared / "fixtures" / "metrics__ms_ssim.npz")
  a, b = (
    jnp.asarray(np.moveaxis(z[f"in/{n}"], 1, -1) / 255, jnp.float32)
    for n in "xy"
  )
  window = image.gaussian_window(11, 1.5)
  np.testing.assert_allclose(window, z["out/window"].ravel(), atol=1e-7)
  near = {"atol": 1e-6, "rtol": 0}
  np.testing.assert_allclose(image.ssim(a, b), z["out/ssim"], **near)
  np.testing.assert_allclose(
    image.ssim(a, b, 7, 1.0), z["out/ssim_win7"], **near
  )
  np.testing.assert_allclose(image.ms_ssim(a, b), z["out/ms_ssim"], **near)
  np.testing.assert_allclose(
    image.ms_ssim(a, b, weights=(0.3, 0.4, 0.3)), z["out/ms_w3"], **near
  )
  np.testing.assert_allclose(image.ssim(a, 1 - b), z["out/ssim_neg"], atol=5e-6)
  np.testing.assert_allclose(
    image.ssim(a, 1 - b, nonnegative=True), z["out/ssim_nonneg"], atol=5e-6
  )


def _pair(size=15):
  a, b = jax.random.uniform(jax.random.key(0), (2, 2, size, size, 3))
  return a, 0.5 * a + 0.5 * b


def _direct_ssim(a, b, window, sigma):
  """One picture channel, window by window."""
  line = np.exp(-((np.arange(window) - window // 2) ** 2) / (2 * sigma**2))
  weights = np.outer(line, line) / line.sum() ** 2
  values = []
  for i in range(a.shape[0] - window + 1):
    for j in range(a.shape[1] - window + 1):
      x = a[i : i + window, j : j + window]
      y = b[i : i + window, j : j + window]
      mx, my = (weights * x).sum(), (weights * y).sum()
      vx = (weights * (x - mx) ** 2).sum()
      vy = (weights * (y - my) ** 2).sum()
      cov = (weights * (x - mx) * (y - my)).sum()
      light = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
      values.append(light * (2 * cov + 9e-4) / (vx + vy + 9e-4))
  return np.mean(values)


def test_ssim_window_by_window():
  a, b = _pair()
  wanted = [
    np.mean(
      [
        _direct_ssim(
          np.asarray(a, np.float64)[n, ..., c],
          np.asarray(b, np.float64)[n, ..., c],
          11,
          1.5,
        )
        for c in range(3)
      ]
    )
    for n in range(2)
  ]
  np.testing.assert_allclose(image.ssim(a, b), wanted, atol=1e-5)


def test_ms_ssim():
  a, b = _pair(23)
  one = image.ms_ssim(a, b, window=5, weights=(1.0,))
  np.testing.assert_allclose(one, image.ssim(a, b, window=5), atol=1e-6)
  two = image.ms_ssim(a, b, window=5, weights=(0.0, 1.0))
  # 23 is odd: a ring of zeros joins the means of 2 x 2.
  halves = [
    np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))[:, :24, :24]
    for x in (a, b)
  ]
  halves = [h.reshape(2, 12, 2, 12, 2, 3).mean((2, 4)) for h in halves]
  np.testing.assert_allclose(two, image.ssim(*halves, window=5), atol=1e-6)
  np.testing.assert_allclose(
    image.ms_ssim(a, a, window=5, weights=(0.5, 0.5)), 1, atol=1e-6
  )
  with pytest.raises(ValueError, match="at least 161"):
    image.ms_ssim(a, b)
  with pytest.raises(ValueError, match="at least 31"):
    image.ssim(a, b, window=31)


def test_psnr():
  a = jnp.zeros((3, 4, 4, 3))
  b = a.at[0].set(0.1).at[1, 0, 0].set(1.0)
  np.testing.assert_allclose(
    image.psnr(a, b), [20, 10 * np.log10(16), 100], rtol=1e-5
  )
  mask = jnp.zeros((3, 4, 4)).at[:, 0, :2].set(1).at[2].set(0)
  masked = image.psnr(a, b, mask)
  np.testing.assert_allclose(masked[:2], [20, 10 * np.log10(2)], rtol=1e-5)
  assert np.isnan(masked[2])
  np.testing.assert_allclose(
    image.to_unit(jnp.array([-1.5, -1.0, 0.0, 1.0])), [0, 0, 0.5, 1]
  )


def test_means_merge():
  values = np.arange(10.0)
  whole = mean.MeanState.of(values)
  parts = mean.MeanState.empty().add(values[:3]).add(values[3:])
  np.testing.assert_allclose(parts.value, whole.value)
  np.testing.assert_allclose(whole.value, 4.5)
  masked = mean.MeanState.of(jnp.array([1.0, np.nan, 4.0]), np.array([1, 0, 3]))
  np.testing.assert_allclose(masked.value, 13 / 4)
  table = mean.MeanState.empty((2,)).add(
    jnp.array([[1.0, 2.0], [3.0, 9.0]]), jnp.array([[1, 0], [1, 0]])
  )
  np.testing.assert_allclose(table.value, [2.0, np.nan])


def test_region_error():
  a = jnp.zeros((2, 4, 4, 3))
  b = a.at[0, :2].set(0.5).at[1, 3, 3].set(0.9)
  labels = jnp.zeros((2, 4, 4), jnp.int32).at[:, 2:].set(1).at[1, 0, 0].set(7)
  error, pixels = regions.region_error(a, b, labels, 3)
  np.testing.assert_allclose(pixels, [[8, 8, 0], [7, 8, 0]])
  np.testing.assert_allclose(error, [[0.5, 0, 0], [0, 0.9 / 8, 0]], rtol=1e-6)
  squared, _ = regions.region_error(a, b, labels, 3, kind="l2")
  np.testing.assert_allclose(squared[0, 0], 0.25)
  with pytest.raises(ValueError, match="kind 'l0'"):
    regions.region_error(a, b, labels, 3, kind="l0")


def test_cosine_similarity():
  a = jnp.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
  b = jnp.array([[-1.0, 0.0], [3.0, 0.0], [1.0, 2.0]])
  np.testing.assert_allclose(
    identity.cosine_similarity(a, b), [-1, np.sqrt(0.5), 0], rtol=1e-6
  )


def test_region_gradient_leaves_outlines_out():
  labels = np.zeros((1, 6, 6), np.int32)
  labels[:, :, 3:] = 1
  a = np.zeros((1, 6, 6, 3), np.float32)
  a[..., :3, :] = np.arange(3)[:, None] * 0.1  # a ramp in the left half
  a[:, :, 3:] = 5.0  # a step between the halves, and flat there
  slope, pixels = regions.region_gradient(
    jnp.asarray(a), jnp.asarray(labels), 3
  )
  np.testing.assert_allclose(slope, [[0.1, 0.0, 0.0]], atol=1e-6)
  # The last row and column have no neighbours, the third column another's.
  assert pixels.tolist() == [[10, 10, 0]]
