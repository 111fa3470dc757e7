"""Counter-based random streams, one per factor, equal on every machine.

A stream is keyed by (seed, indices, factor name), so one factor can be redrawn
or swapped without touching another. Only raw Philox words and exact float64
arithmetic are used: NumPy promises the raw words for ever, but not the
sequence behind `Generator.normal`.
"""

import hashlib

import numpy as np


class Stream:
  """Random numbers of one factor.

  Args:
    *key: integers and strings that name the stream, e.g. (seed, index, "hair").
  """

  def __init__(self, *key):
    text = "/".join(str(k) for k in key).encode()
    digest = hashlib.blake2b(text, digest_size=16).digest()
    words = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    self._bits = np.random.Philox(key=words)

  def random(self):
    """Uniform in [0, 1)."""
    return int(self._bits.random_raw() >> 11) * 2.0**-53

  def uniform(self, low, high):
    """Uniform in [low, high)."""
    return low + (high - low) * self.random()

  def chance(self, probability):
    """True with the given probability."""
    return self.random() < probability

  def normal(self, mean=0.0, std=1.0):
    """Sum of twelve uniforms: normal within 6 sigma, exact on any machine."""
    return mean + std * (sum(self.random() for _ in range(12)) - 6.0)

  def index(self, weights):
    """Index drawn in proportion to the non-negative weights."""
    target = self.random() * sum(weights)
    total = 0.0
    for i, weight in enumerate(weights):
      total += weight
      if target < total:
        return i
    return max(i for i, w in enumerate(weights) if w > 0)

  def choice(self, items):
    """One of the items, all equally likely."""
    return items[int(self.random() * len(items))]

  def array(self, *shape):
    """Array of uniforms in [0, 1)."""
    n = int(np.prod(shape))
    return np.array([self.random() for _ in range(n)]).reshape(shape)
