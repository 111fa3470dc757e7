"""Where every array lives: ordered rules over the paths of the whole state.

The rules are big_vision's idea (sharding.py). A leaf without a rule and a rule
without a leaf are both errors, so a renamed layer cannot lose its rule unseen.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from faceedit_jax.core.typing import PyTree

# (leaf shape, mesh) -> PartitionSpec
SpecFn = Callable[[tuple[int, ...], Mesh], PartitionSpec]
Rule = tuple[str, PartitionSpec | SpecFn]

AXES = ("data", "fsdp")
# Splitting a leaf below 1 MiB of float32 costs more in messages than it saves.
MIN_SIZE = 2**18


def make_mesh(
  sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """A mesh of all devices.

  Args:
    sizes: {"data": n, "fsdp": m}; one of them may be -1 for "the rest".
    devices: the devices to use, by default all of the run.

  Returns:
    A mesh with axes ("data", "fsdp"). The axes are of type Auto, because Linen
    layers do not say how explicit axes pass through them.

  Raises:
    ValueError: unknown axes, or sizes that do not make up the devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = dict(sizes)
  if sorted(sizes) != sorted(AXES):
    raise ValueError(f"mesh has axes {sorted(sizes)}, wanted {AXES} (mesh)")
  shape = [sizes[axis] for axis in AXES]
  known = math.prod(size for size in shape if size != -1)
  if shape.count(-1) == 1 and known > 0 and len(devices) % known == 0:
    shape[shape.index(-1)] = len(devices) // known
  if min(shape) < 1 or math.prod(shape) != len(devices):
    raise ValueError(
      f"mesh {sizes} does not make up {len(devices)} devices; sizes must "
      "multiply to that number and one may be -1 (mesh.data, mesh.fsdp)"
    )
  return jax.make_mesh(
    tuple(shape),
    AXES,
    axis_types=(AxisType.Auto,) * len(AXES),
    devices=devices,
  )


def replicate(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  """Every device holds the whole leaf."""
  del shape, mesh
  return PartitionSpec()


def fsdp(axis: str = "fsdp", min_size: int = MIN_SIZE) -> SpecFn:
  """Splits a leaf's largest dimension that `axis` divides.

  Args:
    axis: mesh axis to split over.
    min_size: leaves with fewer elements are replicated.

  Returns:
    (shape, mesh) -> PartitionSpec; leaves that `axis` does not divide, and
    scalars, are replicated. Of equally large dimensions the last is taken.
  """

  def spec(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    if axis not in mesh.shape:
      raise ValueError(
        f"fsdp over axis {axis!r}, the mesh has {tuple(mesh.shape)} (mesh)"
      )
    parts = mesh.shape[axis]
    if parts == 1 or not shape or math.prod(shape) < min_size:
      return PartitionSpec()
    fitting = [i for i, size in enumerate(shape) if size and size % parts == 0]
    if not fitting:
      return PartitionSpec()
    best = max(fitting, key=lambda i: (shape[i], i))
    return PartitionSpec(
      *[axis if i == best else None for i in range(best + 1)]
    )

  return spec


# Nets, as in the frozen argument of the step.
NET_RULES: tuple[Rule, ...] = ((r".*", fsdp()),)
# The whole state. Optimiser and EMA paths end in the parameter's own path and
# shape, so they are split as the parameter is.
DEFAULT_RULES: tuple[Rule, ...] = ((r"^(step|rng)$", replicate), *NET_RULES)


def path_name(path: tuple) -> str:
  """ "params/unet/conv/kernel" from a key path of `jax.tree_util`."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def infer(
  tree: PyTree, rules: Sequence[Rule] = DEFAULT_RULES, mesh: Mesh | None = None
) -> PyTree:
  """A sharding for every leaf; the first rule that matches decides.

  Args:
    tree: arrays or `ShapeDtypeStruct`s, such as a whole state.
    rules: [(regular expression searched in the "/"-joined path, what to do)].
      What to do is a PartitionSpec or a function (shape, mesh) -> one.
    mesh: the mesh; required.

  Returns:
    A tree of NamedShardings like `tree`.

  Raises:
    ValueError: a leaf that no rule matches, a rule that matches no leaf (with
      the nearest path), or a spec that does not fit its leaf.
  """
  if mesh is None:
    raise ValueError("sharding.infer needs a mesh; see sharding.make_mesh")
  leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
  paths = [path_name(path) for path, _ in leaves]
  if not paths:
    return tree
  for pattern, _ in rules:
    if not any(re.search(pattern, path) for path in paths):
      raise ValueError(
        f"sharding rule {pattern!r} matches no leaf; nearest path "
        f"{_nearest(pattern, paths)!r}"
      )
  shardings = []
  for path, (_, leaf) in zip(paths, leaves, strict=True):
    rule = next((r for p, r in rules if re.search(p, path)), None)
    if rule is None:
      raise ValueError(
        f"no sharding rule matches leaf {path!r} of shape {np.shape(leaf)}; "
        f"rules are {[pattern for pattern, _ in rules]}"
      )
    shape = tuple(np.shape(leaf))
    spec = rule if isinstance(rule, PartitionSpec) else rule(shape, mesh)
    sharding = NamedSharding(mesh, spec)
    try:
      sharding.shard_shape(shape)
    except ValueError as error:
      raise ValueError(
        f"sharding rule gives {spec} for leaf {path!r} of shape {shape}, which "
        f"the mesh {dict(mesh.shape)} does not divide"
      ) from error
    shardings.append(sharding)
  return jax.tree_util.tree_unflatten(treedef, shardings)


def _nearest(pattern: str, paths: Sequence[str]) -> str:
  """The path that looks most like a regular expression."""
  plain = re.sub(r"[\\^$.*+?()\[\]{}|]", "", pattern)

  def likeness(path: str) -> float:
    # Compared with stretches of the path as well, as rules name a part of it.
    parts = path.split("/")
    depth = plain.strip("/").count("/") + 1
    stretches = [
      "/".join(parts[i : i + depth]) for i in range(len(parts) - depth + 1)
    ]
    return max(
      difflib.SequenceMatcher(None, plain.strip("/"), s).ratio()
      for s in [*stretches, path]
    )

  return max(paths, key=likeness)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Batches are split over all devices along their first axis."""
  return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def check_batch_divides(
  batch_size: int,
  mesh: Mesh,
  accumulate: int = 1,
  key: str = "data.batch_size",
) -> None:
  """Checks that a global batch can be split over devices and micro-batches.

  Args:
    batch_size: examples per step over all hosts.
    mesh: the mesh of the run.
    accumulate: micro-batches per step.
    key: config key of the batch size, for the error; the key of `accumulate`
      is its sibling one level up.

  Raises:
    ValueError: one line with the numbers and the keys to change.
  """
  if batch_size < 1 or batch_size % mesh.size:
    raise ValueError(
      f"batch of {batch_size} is not divisible by {mesh.size} devices ({key})"
    )
  if accumulate < 1 or batch_size % (mesh.size * accumulate):
    stage = key.removesuffix("data.batch_size")
    raise ValueError(
      f"batch of {batch_size} is not divisible by {mesh.size} devices x "
      f"{accumulate} micro-batches ({key}, {stage}accumulate)"
    )
