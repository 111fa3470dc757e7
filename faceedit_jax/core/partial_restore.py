"""Hands nets from one stage to the next, and to inference, by name."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import safetensors.numpy

from faceedit_jax.core import checkpoint, net_shapes
from faceedit_jax.core.errors import CheckpointError
from faceedit_jax.core.recipe import Recipe, WeightSource
from faceedit_jax.core.state import TrainState
from faceedit_jax.core.typing import PyTree, Variables

# (tree of ShapeDtypeStruct) -> the same tree with shardings for this run.
Place = Callable[[PyTree], PyTree]


_UNCONVERTED = (
  "; its names are not ours: python -m faceedit_jax.convert makes a file that "
  "a config can name of a published one"
)


def run_once() -> dict[str, Any] | None:
  """Compiler options for what runs once, such as drawing parameters.

  On CPUs LLVM's optimisations take longer than they save there.
  """
  if jax.default_backend() != "cpu":
    return None
  return {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
  }


def restore_net(
  directory: str | os.PathLike[str],
  net: str,
  abstract: PyTree,
  ema: str = "",
  step: int | None = None,
) -> PyTree:
  """Restores one net out of a stage's checkpoint; nothing else is read.

  Args:
    directory: a `checkpoints` directory of the earlier stage.
    net: name of the net in that stage.
    abstract: its variables {"params": tree, collection: tree, ...} as
      `ShapeDtypeStruct`s, with the shardings wanted.
    ema: name of the average to take the parameters from. A net that this
      average does not cover, and a stage that keeps no average at all, give
      the raw parameters. Empty: the raw parameters.
    step: which checkpoint; the newest when None.

  Returns:
    The variables, with the current stats of that checkpoint.

  Raises:
    CheckpointError: one line when net or average are not there, or the net
      has another structure.
  """
  return restore_nets(directory, {net: abstract}, ema, step)[net]


def restore_nets(
  directory: str | os.PathLike[str],
  abstract: Mapping[str, PyTree],
  ema: str = "",
  step: int | None = None,
) -> dict[str, PyTree]:
  """Restores several nets of a stage at once, {net: variables}; as above."""
  if step is None:
    step = max(checkpoint.steps_in(directory), default=None)
  stored = checkpoint.stored_shapes(directory, step)
  path = pathlib.Path(directory).absolute() / str(step)
  nets, averages = _names(stored, "params"), _names(stored, "ema")
  for net in abstract:
    if net not in nets:
      raise CheckpointError(f"{path} has no net {net!r}; it has {nets}")
  if ema and averages and ema not in averages:
    raise CheckpointError(f"{path} has no average {ema!r}; it has {averages}")
  averaged = _names(stored, f"ema/{ema}") if ema else []

  def origin(net, collection):
    if collection != "params":
      return "stats", net, collection
    return ("ema", ema, net) if net in averaged else ("params", net)

  wanted = {
    origin(net, name): tree
    for net, variables in abstract.items()
    for name, tree in variables.items()
    if jax.tree.leaves(tree)
  }
  found = checkpoint.restore_parts(directory, wanted, step)
  return {
    net: {
      name: found.get(origin(net, name), tree)
      for name, tree in variables.items()
    }
    for net, variables in abstract.items()
  }


def load_net(
  net: str,
  source: WeightSource,
  abstract: PyTree,
  workdir: pathlib.Path,
) -> Variables:
  """Loads one pretrained net.

  Args:
    net: its name in the recipe that asks.
    source: where it comes from: a stage of this workdir, another stage
      directory, or a `.safetensors` file with names like "params/conv/kernel".
    abstract: its variables as `ShapeDtypeStruct`s with shardings.
    workdir: directory of the stages.

  Returns:
    The variables, checked against `abstract`.

  Raises:
    CheckpointError: one line: what was got, what was wanted, where.
  """
  if source.collections:
    abstract = {k: v for k, v in abstract.items() if k in source.collections}
  path = _origin(net, source, workdir)
  if path.suffix == ".safetensors":
    return _load_safetensors(path, net, abstract)
  return restore_net(path, source.net or net, abstract, source.ema)


def stored_net(
  net: str, source: WeightSource, workdir: pathlib.Path
) -> Variables:
  """The variables of a pretrained net as they are stored, without reading them.

  Args:
    net, source, workdir: as in `load_net`.

  Returns:
    {"params": tree, collection: tree} of `ShapeDtypeStruct`s.

  Raises:
    CheckpointError: one line.
  """
  path = _origin(net, source, workdir)
  if path.suffix == ".safetensors":
    flat = _stored_tensors(path, net)
  else:
    flat = _stored_variables(path, source.net or net)
  tree = flax.traverse_util.unflatten_dict(flat, sep="/")
  if source.collections:
    tree = {k: v for k, v in tree.items() if k in source.collections}
  return tree


def _origin(
  net: str, source: WeightSource, workdir: pathlib.Path
) -> pathlib.Path:
  """The `.safetensors` file or directory of checkpoints of a net."""
  if source.stage:
    directory = pathlib.Path(workdir) / source.stage / "checkpoints"
    if not checkpoint.steps_in(directory):
      raise CheckpointError(
        f"net {net!r} comes from stage {source.stage!r}, which has no "
        f"checkpoint in {directory}; train it first (--stage={source.stage})"
      )
    return directory
  if not source.path:
    raise CheckpointError(
      f"net {net!r} has neither a stage nor a path to come from "
      "(WeightSource of the recipe)"
    )
  check_files({net: source})
  path = pathlib.Path(source.path).expanduser()
  if path.suffix == ".safetensors":
    return path
  for directory in (path / "checkpoints", path):
    if checkpoint.steps_in(directory):
      return directory
  raise CheckpointError(
    f"net {net!r}: {path} is neither a .safetensors file nor the directory of "
    "a trained stage; python -m faceedit_jax.convert makes the former of a "
    "published file"
  )


def _stored_variables(
  directory: str | os.PathLike, net: str, step: int | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
  """{"collection/path": shape} of a net of a stage's checkpoint."""
  stored, flat = checkpoint.stored_shapes(directory, step), {}
  for prefix, head in ((f"params/{net}/", "params/"), (f"stats/{net}/", "")):
    for name, (shape, dtype) in stored.items():
      if name.startswith(prefix):
        kept = head + name.removeprefix(prefix)
        flat[kept] = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
  if not flat:
    raise CheckpointError(
      f"{directory} has no net {net!r}; it has {_names(stored, 'params')}"
    )
  return flat


def _stored_tensors(
  path: pathlib.Path, net: str
) -> dict[str, jax.ShapeDtypeStruct]:
  """The same of a file, whose numbers become float32."""
  try:
    with safetensors.safe_open(path, "numpy") as file:
      shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
      whole = {n for n in shapes if file.get_slice(n).get_dtype()[0] in "IU"}
  except Exception as e:  # its own, of what it cannot read
    raise CheckpointError(f"net {net!r}: cannot read {path}: {e}") from e
  bundle = f"{net}/"
  if any(name.startswith(bundle) for name in shapes):
    shapes = {n: s for n, s in shapes.items() if n.startswith(bundle)}
  flat = {
    name.removeprefix(bundle): jax.ShapeDtypeStruct(
      tuple(shape), jnp.int32 if name in whole else jnp.float32
    )
    for name, shape in shapes.items()
  }
  if not any(name.startswith("params/") for name in flat):
    raise CheckpointError(
      f"net {net!r}: {path} does not fit: it holds {sorted(flat)[:5]}"
      + _UNCONVERTED
    )
  return flat


def check_files(sources: Mapping[str, WeightSource]) -> None:
  """Refuses files that are not there, before anything long is begun.

  Raises:
    CheckpointError: one line.
  """
  for net, source in sources.items():
    if source.path and not pathlib.Path(source.path).expanduser().exists():
      raise CheckpointError(
        f"net {net!r}: there is no file {source.path}; python -m "
        "faceedit_jax.convert makes it from the published one"
      )


def load_nets(
  sources: Mapping[str, WeightSource],
  abstract: Mapping[str, PyTree],
  workdir: pathlib.Path,
) -> dict[str, Variables]:
  """Loads several nets; see `load_net`."""
  lacking = sorted(set(sources) - set(abstract))
  if lacking:
    raise CheckpointError(
      f"the recipe wants weights for {lacking} but initialises only "
      f"{sorted(abstract)} (Recipe.init, Recipe.init_frozen)"
    )
  return {
    net: load_net(net, source, abstract[net], workdir)
    for net, source in sources.items()
  }


def origins(
  recipe: Recipe, workdir: pathlib.Path, skip: Sequence[str] = ()
) -> list[pathlib.Path]:
  """The files and newest checkpoints that `load_frozen` reads; see there."""
  found = []
  for net, source in recipe.frozen().items():
    if net not in skip:
      path = _origin(net, source, workdir)
      steps = [] if path.is_file() else checkpoint.steps_in(path)
      found.append(path / str(steps[-1]) if steps else path)
  return found


def load_frozen(
  recipe: Recipe,
  workdir: pathlib.Path,
  place: Place,
  skip: Sequence[str] = (),
  as_stored: bool = False,
) -> dict[str, Variables]:
  """Loads the frozen nets of a recipe.

  A frozen net without a source (say a fixed random projection) keeps the
  values of `init_frozen`.

  Args:
    recipe: whose nets.
    workdir: where earlier stages lie.
    place: onto the devices.
    skip: names of nets to do without.
    as_stored: takes nets in the shapes that they are stored in, which saves
      tracing the recipe. For stages that the recipe is known to fit.

  Returns:
    {net: variables}.
  """
  sources = {
    net: source for net, source in recipe.frozen().items() if net not in skip
  }
  if as_stored:
    fresh = {net: stored_net(net, of, workdir) for net, of in sources.items()}
  else:
    fresh = net_shapes.frozen(recipe)
  abstract = place({net: fresh[net] for net in sources if net in fresh})
  loaded = load_nets(sources, abstract, workdir)

  def draw():
    made = recipe.init_unsourced(jax.random.key(0))
    return {net: made[net] for net in made if net not in skip}

  rest = jax.eval_shape(draw)
  if rest:
    shardings = jax.tree.map(lambda leaf: leaf.sharding, place(rest))
    draw_once = jax.jit(
      draw, out_shardings=shardings, compiler_options=run_once()
    )
    loaded.update(draw_once())
  return loaded


def start_from(
  state: TrainState, nets: Mapping[str, Variables], shardings: PyTree
) -> TrainState:
  """Puts pretrained nets into a fresh state, and into its averages.

  Args:
    state: a fresh state; it is donated.
    nets: {net: variables} of some of its nets.
    shardings: of the whole state.

  Returns:
    The state; optimiser states are those of a fresh start.
  """

  def put(state, nets):
    params = dict(state.params)
    stats = dict(state.stats)
    for net, variables in nets.items():
      rest = dict(variables)
      params[net] = rest.pop("params")
      stats[net] = {**stats[net], **rest}
    ema = {
      name: {
        net: nets[net]["params"] if net in nets else tree
        for net, tree in trees.items()
      }
      for name, trees in state.ema.items()
    }
    return state.replace(params=params, stats=stats, ema=ema)

  return jax.jit(put, out_shardings=shardings, donate_argnums=0)(
    state, dict(nets)
  )


def main_ema(recipe: Recipe) -> str:
  """The average that inference reads: "ema", else the only one, else none."""
  names = list(recipe.ema())
  if "ema" in names:
    return "ema"
  return names[0] if len(names) == 1 else ""


def load_view(
  recipe: Recipe,
  directory: pathlib.Path,
  place: Place,
  ema: str | None = None,
  step: int | None = None,
  as_stored: bool = False,
) -> dict[str, Variables]:
  """Loads all trained nets of a stage for inference, without its optimisers.

  Args:
    recipe: recipe of the stage.
    directory: its `checkpoints` directory.
    place: puts shardings on abstract trees.
    ema: average to read; `main_ema` when None, raw parameters when "".
    step: which checkpoint; the newest when None.
    as_stored: takes all nets in the shapes that they are stored in, see
      `load_frozen`.

  Returns:
    {net: {"params": tree, collection: tree, ...}}.

  Raises:
    CheckpointError: one line.
  """
  ema = main_ema(recipe) if ema is None else ema
  if as_stored:
    stored = checkpoint.stored_shapes(directory, step)
    fresh = {
      net: flax.traverse_util.unflatten_dict(
        _stored_variables(directory, net, step), sep="/"
      )
      for net in _names(stored, "params")
    }
  else:
    fresh = net_shapes.trained(recipe)
  abstract = place(fresh)
  return restore_nets(directory, abstract, ema, step)


def place_on(sharding: Any) -> Place:
  """A `Place` that puts every leaf on one sharding."""

  def place(tree):
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )

  return place


def _names(stored: Mapping[str, Any], prefix: str) -> list[str]:
  """Names one level below a prefix of "/"-joined paths."""
  head = f"{prefix}/"
  return sorted(
    {k[len(head) :].split("/")[0] for k in stored if k.startswith(head)}
  )


def _load_safetensors(
  path: pathlib.Path, net: str, abstract: PyTree
) -> Variables:
  try:
    flat = safetensors.numpy.load_file(path)
  except Exception as e:  # its own, and those of types that NumPy lacks
    raise CheckpointError(f"net {net!r}: cannot read {path}: {e}") from e
  wanted = flax.traverse_util.flatten_dict(abstract, sep="/")
  if not set(wanted) <= set(flat):  # a bundle of several nets
    flat = {
      k[len(net) + 1 :]: v for k, v in flat.items() if k.startswith(f"{net}/")
    } or flat
  missing, unused = sorted(set(wanted) - set(flat)), set(flat) - set(wanted)
  changed = [
    f"{k} {tuple(flat[k].shape)}, wanted {tuple(v.shape)}"
    for k, v in wanted.items()
    if k in flat and tuple(flat[k].shape) != tuple(v.shape)
  ]
  if missing or unused or changed:
    raise CheckpointError(
      f"net {net!r}: {path} does not fit: {len(missing)} missing "
      f"{missing[:5]}, {len(unused)} unused {sorted(unused)[:5]}, "
      f"{len(changed)} of another shape {changed[:5]}"
      + ("" if any("params/" in k for k in flat) else _UNCONVERTED)
    )
  arrays = {
    k: jax.device_put(jnp.asarray(flat[k], v.dtype), v.sharding)
    for k, v in wanted.items()
  }
  return flax.traverse_util.unflatten_dict(arrays, sep="/")
