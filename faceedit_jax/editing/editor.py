"""A trained stage as a value that edits: the Python side of editing.

inputs -> arrays (photos through the aligner) -> recipe.edit -> paste back.
"""

import contextlib
import dataclasses
import functools
import inspect
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.errors
import jax
import numpy as np

from data_pipelines import align, detectors
from faceedit_jax import load_trained as trained_lib
from faceedit_jax.core import editing as protocols
from faceedit_jax.core import run_cache, sheets, writers
from faceedit_jax.core.editing import SOURCE
from faceedit_jax.core.errors import UserError, as_user_error
from faceedit_jax.editing import alignment as alignment_lib
from faceedit_jax.editing import find_face
from faceedit_jax.editing import inputs as inputs_lib
from faceedit_jax.editing import options as options_lib
from faceedit_jax.editing.alignment import Detector, Landmarks
from faceedit_jax.editing.lists import FACE
from faceedit_jax.editing.result import EditResult

_HELD_PIXELS = 64_000_000  # of photos, from which a batch is not filled up


@dataclasses.dataclass(frozen=True)
class _Prepared:
  """The inputs of one edit, and the options that are its own."""

  inputs: inputs_lib.Inputs
  own: dict[str, Any]

  @property
  def kind(self):
    """Edits of one kind share a batch: they trace once."""
    return set(self.inputs.arrays), repr(self.own)

  @property
  def pixels(self) -> int:
    """Of the photos that are held until the edit is pasted into them."""
    return sum(p.shape[0] * p.shape[1] for p in self.inputs.photos.values())


class Editor:
  """A trained stage that edits.

  Attributes:
    recipe: the stage's recipe.
    image_size: side of the run's pictures in pixels.
    batch_size: edits made at once; fewer are filled up to it.
    inputs: what an edit takes, as the recipe declares it.
    options: names of its options; None where the recipe takes any.
  """

  def __init__(
    self,
    recipe: protocols.Editable,
    variables: Mapping[str, Any],
    frozen: Mapping[str, Any],
    image_size: int,
    *,
    batch_size: int = 1,
    detector: Detector = detectors.AUTO,
    cache: run_cache.RunCache | None = None,
  ):
    """Takes nets that are already loaded; see `from_workdir`.

    Args:
      recipe, variables, frozen, image_size: as `load_trained.Trained` has them.
      batch_size, detector: as in `from_workdir`.
      cache: keeps compiled programs for the next process; nothing does when
        None.
    """
    if batch_size < 1:
      raise UserError(f"batch_size is {batch_size}, wanted at least 1")
    self.recipe = protocols.editable(recipe)
    self.image_size, self.batch_size = image_size, batch_size
    self.inputs = tuple(recipe.edit_inputs)
    self.options = options_lib.names(recipe)
    self._kinds = {item.field: item.kind for item in self.inputs}
    self._variables, self._frozen = variables, frozen
    self._cache = cache or run_cache.RunCache()
    self._edits: dict[str, run_cache.Program] = {}
    reader = self._make_reader()
    with as_user_error():
      self._aligner = alignment_lib.FaceAligner(
        recipe.alignment, image_size, reader, detector
      )
    self._reader = inputs_lib.InputReader(
      self.inputs, image_size, self._aligner
    )

  @classmethod
  def from_workdir(
    cls,
    workdir: str | os.PathLike,
    config: Mapping[str, Any] | None = None,
    stage: str | None = None,
    *,
    ema: str | None = None,
    step: int | None = None,
    batch_size: int = 1,
    detector: Detector = detectors.AUTO,
  ) -> "Editor":
    """Loads a trained stage.

    Args:
      workdir: directory of a run of `faceedit_jax.main`.
      config: from `core.config.load`; by default what the run has recorded.
      stage: the last of the config when None.
      ema: average to read; the recipe's main one when None, raw parameters
        when "".
      step: which checkpoint; the newest when None.
      batch_size: edits made at once.
      detector: finds five points where none are given: a function from a
        picture to them, a name (`detectors.choose`), or "net" for the recipe's
        own net. By default a detector that is installed, else that net.

    Returns:
      The editor.

    Raises:
      UserError: one line, when something is missing or does not fit.
    """
    found = trained_lib.load(workdir, config, stage, ema, step)
    return cls(
      found.recipe,
      found.variables,
      found.frozen,
      found.image_size,
      batch_size=batch_size,
      detector=detector,
      cache=found.cache,
    )

  def edit(
    self,
    source: inputs_lib.Picture | None = None,
    *,
    seed: int = 0,
    landmarks: Landmarks = None,
    aligned: bool = False,
    paste_back: bool = False,
    face: Any = detectors.LARGEST,
    **given: Any,
  ) -> EditResult:
    """Makes one edit.

    Args:
      source: the photo to edit, where the recipe edits photos: a file, or
        uint8 (h, w), (h, w, 3) or (h, w, 4) of any size.
      seed: of the sampling noise.
      landmarks: five points in pixels by file name, or by field for arrays;
        or a landmarks file (`data_pipelines.landmarks`).
      aligned: the pictures are already framed; they are only cut square.
      paste_back: also put the edit back into the source photo.
      face: which face of the source, where points are searched: "largest", a
        number (1 is the largest), or (x, y) in pixels.
      **given: other inputs by field, and options by name.

    Returns:
      The edit. It starts from the same noise in every batch of one seed.

    Raises:
      UserError: one line naming the input or option at fault.
    """
    row = {k: v for k, v in given.items() if k in self._kinds}
    options = {k: v for k, v in given.items() if k not in row}
    self.check_options(options)
    if paste_back:
      self.check_paste_back()
    if source is not None:
      row[SOURCE] = source
    table = alignment_lib.table_of(landmarks)
    item = self._prepare({FACE: face, **row}, table, aligned, paste_back)
    return self._run([item], seed, options, paste_back)[0]

  def edit_many(
    self,
    rows: Iterable[Mapping[str, Any]],
    *,
    seed: int = 0,
    landmarks: Landmarks = None,
    aligned: bool = False,
    paste_back: bool = False,
    face: Any = detectors.LARGEST,
    **options: Any,
  ) -> Iterator[EditResult | UserError]:
    """Makes many edits, `batch_size` at once.

    Args:
      rows: {field: input}, with options of that row alone among them, and
        `face`; None and, but for texts, "" are left out.
      seed, landmarks, aligned, paste_back, face: as in `edit`.
      **options: options of all rows that have no own.

    Returns:
      An iterator of results in the order of the rows. In place of a row whose
      inputs or own options cannot be used comes the UserError that says why.

    Raises:
      UserError: one line, for an option or landmarks file that is wrong.
    """
    self.check_options(options)
    if paste_back:
      self.check_paste_back()
    table = alignment_lib.table_of(landmarks)

    def prepare(row):
      try:
        own = row.get(FACE)
        chosen = face if inputs_lib.is_absent(own, None) else own
        row = {**row, FACE: chosen}
        return self._prepare(row, table, aligned, paste_back)
      except UserError as error:
        return error

    def results(batch):
      good = [item for item in batch if isinstance(item, _Prepared)]
      try:
        made = self._run(good, seed, options, paste_back) if good else ()
      except UserError as error:
        if not good[0].own:
          raise
        made = [error] * len(good)
      done = iter(made)
      for item in batch:
        yield next(done) if isinstance(item, _Prepared) else item

    batches = _batches(map(prepare, rows), self.batch_size)
    return itertools.chain.from_iterable(map(results, batches))

  def find_points(self, photo: inputs_lib.Picture) -> np.ndarray:
    """Five points (5, 2) in pixels of the face in a photo of any size.

    Args:
      photo: path, or uint8 (h, w, 3).

    Raises:
      UserError: no face was found, or the photo cannot be read.
    """
    try:
      return self._aligner.find(inputs_lib.load(photo, "photo")).points
    except (align.AlignError, detectors.DetectorError) as error:
      raise UserError(str(error)) from error

  @property
  def why_net(self) -> str:
    """Why faces are searched with the recipe's own net; "" where asked for."""
    return self._aligner.reason

  def check_options(self, options: Mapping[str, Any]) -> None:
    """Raises a UserError for names that are neither input nor option."""
    options_lib.check(self.recipe, options, tuple(self._kinds))

  def check_paste_back(self) -> None:
    """Raises a UserError where edits cannot be pasted into their source."""
    name = type(self.recipe).__name__
    if self._kinds.get(SOURCE) != "photo":
      raise UserError(
        f"{name} edits no photo that its result could be pasted into; leave "
        "out paste_back"
      )
    if not self.recipe.keeps_frame:
      raise UserError(
        f"{name} does not keep the frame of its source, so its result cannot "
        "be pasted back; leave out paste_back"
      )

  def _make_reader(self) -> find_face.Reader | None:
    """The recipe's own net that finds faces; it compiles once."""
    if not isinstance(self.recipe, protocols.FindsFacePoints):
      return None
    find_points = self.recipe.find_points
    find = self._cache.jit(find_points, f"find_points {_place(find_points)}")

    def read(views):
      batch = inputs_lib.units(inputs_lib.fill(views, find_face.VIEWS))
      with _nets_that_fit():
        points, scores = find(self._variables, self._frozen, batch)
      count = len(views)
      return np.asarray(points)[:count], np.asarray(scores)[:count]

    return read

  def _prepare(self, row, table, aligned, paste_back) -> _Prepared:
    """Reads the inputs of one edit; a photo stays only to be pasted into."""
    row = {
      name: value
      for name, value in row.items()
      if not inputs_lib.is_absent(value, self._kinds.get(name))
    }
    with as_user_error():
      face = detectors.choice_of(row.pop(FACE, detectors.LARGEST), FACE)
    own = {k: v for k, v in row.items() if k not in self._kinds}
    self.check_options(own)
    given = {k: v for k, v in row.items() if k in self._kinds}
    protocols.check_edit(self.recipe, self._variables, given)
    inputs = self._reader.read(given, table, aligned, face)
    kept = {SOURCE} if paste_back else set()
    photos = {k: v for k, v in inputs.photos.items() if k in kept}
    return _Prepared(dataclasses.replace(inputs, photos=photos), own)

  def _run(self, items, seed, options, paste_back) -> list[EditResult]:
    """Makes up to `batch_size` prepared edits."""
    arrays = inputs_lib.to_arrays(
      self.inputs,
      inputs_lib.batch([item.inputs for item in items], self.batch_size),
    )
    given = options_lib.settle(self.recipe, {**options, **items[0].own})
    traced = options_lib.traced(self.recipe, given)
    fixed = {k: v for k, v in given.items() if k not in traced}
    key = repr(sorted(fixed.items()))
    if key not in self._edits:
      self._edits[key] = self._cache.jit(
        functools.partial(_edit, self.recipe, fixed),
        f"edit {_place(self.recipe.edit)} {key}",
      )
    try:
      with _nets_that_fit():
        outputs, shown = jax.device_get(
          self._edits[key](
            self._variables, self._frozen, arrays, jax.random.key(seed), traced
          )
        )
    # An option that the recipe cannot use, or a seed out of range.
    except (ValueError, TypeError, OverflowError) as error:
      text = " ".join(str(error).split())
      raise UserError(f"edit with {given}: {text}") from error
    return [
      self._result(
        item.inputs,
        {k: v[i] for k, v in outputs.items()},
        {k: v[i] for k, v in shown.items()},
        given,
        paste_back,
      )
      for i, item in enumerate(items)
    ]

  def _result(self, inputs, outputs, shown, options, paste_back) -> EditResult:
    picture = outputs.pop("image")
    if not np.isfinite(picture).all():
      raise UserError(
        "the edit holds values that are no numbers: the checkpoint has "
        "diverged; choose an earlier one or another --stage"
      )
    image, square = writers.to_uint8(picture), inputs.squares.get(SOURCE)
    pasted = None
    if paste_back:
      if square is None:
        raise UserError(f"paste_back needs {SOURCE!r}")
      mask = outputs.get("mask")
      if mask is not None:
        mask = np.asarray(mask, np.float32).reshape(image.shape[:2])
      pasted = alignment_lib.paste_back(
        inputs.photos.pop(SOURCE), square, image, mask
      )
    pictures = {
      name: sheets.picture_of(value)
      for name, value in {**outputs, **shown}.items()
    }
    return EditResult(
      image=image,
      inputs=inputs_lib.pictures(self.inputs, inputs.arrays),
      points=None if square is None else alignment_lib.points_in(square),
      matrix=None if square is None else square.matrix,
      pasted=pasted,
      outputs=outputs,
      shown={k: v for k, v in pictures.items() if v is not None},
      options=options,
      label_maps=tuple(
        item.field for item in self.inputs if item.kind == "label_map"
      ),
      faces=inputs.faces,
    )


def _place(method) -> str:
  """Where a method is written, for one that was put in place of another."""
  code = inspect.unwrap(method).__code__
  return f"{code.co_filename}:{code.co_firstlineno}"


@contextlib.contextmanager
def _nets_that_fit():
  """One line where the code builds other nets than a run has trained."""
  try:
    yield
  except flax.errors.FlaxError as error:
    text = str(error).split(" (https://")[0]
    raise UserError(
      "the run holds other nets than this version of faceedit_jax builds from "
      "its config; edit with the version that trained it, or train again: "
      + " ".join(text.split())
    ) from error


def _batches(
  items: Iterable[_Prepared | UserError], size: int
) -> Iterator[Sequence[_Prepared | UserError]]:
  """Neighbours of one kind together, at most `size` that can be made."""
  waiting, count, kind, pixels = [], 0, None, 0
  for item in items:
    if isinstance(item, UserError):
      waiting.append(item)
    else:
      if count == size or (count and kind != item.kind):
        yield waiting
        waiting, count, pixels = [], 0, 0
      waiting.append(item)
      count, kind, pixels = count + 1, item.kind, pixels + item.pixels
    del item  # a photo must not outlive its batch
    if not count or count == size or pixels >= _HELD_PIXELS:
      yield waiting
      waiting, count, pixels = [], 0, 0
  yield waiting


def _edit(recipe, fixed, variables, frozen, inputs, rng, traced):
  """The recipe's edit, and its own colours for what is no picture."""
  options = {**fixed, **traced}
  outputs = dict(recipe.edit(variables, frozen, inputs, rng, **options))
  count = inputs["row"].shape[0]
  outputs = {
    k: v
    for k, v in outputs.items()
    if getattr(v, "ndim", 0) and v.shape[0] == count
  }
  if not isinstance(recipe, protocols.PaintsOutputs):
    return outputs, {}
  return outputs, dict(recipe.paint(variables, outputs))
