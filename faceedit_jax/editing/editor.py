"""A trained stage as a value that edits pictures: the Python side of editing.

files -> five points -> aligned squares -> recipe.edit -> paste back -> files.
"""

import dataclasses
import difflib
import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from data_pipelines import align
from faceedit_jax import load_trained as trained_lib
from faceedit_jax.core import recipe as recipe_lib
from faceedit_jax.core import sheets, writers
from faceedit_jax.core.errors import UserError
from faceedit_jax.editing import find_face
from faceedit_jax.editing.find_face import Detector, Landmarks, Picture

SOURCE, STRIP = "source", "strip"


@dataclasses.dataclass(frozen=True)
class EditResult:
  """One edited picture and what led to it; pictures are uint8.

  Attributes:
    image: (s, s, 3), the edit in the aligned square.
    source: (s, s, 3), the aligned source.
    queries: {query: (s, s, 3)}, the aligned other pictures.
    points: (5, 2), the face points in pixels of the source picture.
    matrix: (2, 3), from pixels of the source picture to the aligned square.
    pasted: (h, w, 3), the source picture with the edit in place, if asked for.
    outputs: {name: array} all else that the recipe returns for this picture.
    shown: {name: (h, w, 3)}, those outputs as pictures.
    settings: {name: value} the settings that were given.
  """

  image: np.ndarray
  source: np.ndarray
  queries: dict[str, np.ndarray]
  points: np.ndarray
  matrix: np.ndarray
  pasted: np.ndarray | None
  outputs: dict[str, np.ndarray]
  shown: dict[str, np.ndarray]
  settings: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def strip(self) -> np.ndarray | None:
    """Several edits side by side (s, n s, 3), where the recipe makes them."""
    return self.shown.get(STRIP)

  @property
  def rendering(self) -> np.ndarray | None:
    """The rendering (h, w, 3) that the edit follows, where there is one."""
    return self.shown.get("rendering")

  def sheet(self) -> np.ndarray:
    """All pictures side by side with their names, uint8 (H, W, 3)."""
    first = {SOURCE: self.source, **self.queries}
    rest = {k: v for k, v in self.shown.items() if k != STRIP}
    middle = {k: rest.pop(k) for k in ("rendering",) if k in rest}
    return sheets.labelled({**first, **middle, "edit": self.image, **rest})

  def strip_sheet(self) -> np.ndarray:
    """The source and the pictures of the strip, labelled, uint8 (H, W, 3).

    A picture's label is its value in the setting that lists one for each, such
    as strengths; its number where there is none.

    Raises:
      UserError: this edit has no strip.
    """
    if self.strip is None:
      raise UserError("this edit made no strip; it needs a list as a setting")
    count = self.strip.shape[1] // self.strip.shape[0]
    lists = [v for v in self.settings.values() if isinstance(v, list | tuple)]
    labels = next((v for v in lists if len(v) == count), range(1, count + 1))
    pictures = np.split(self.strip, count, axis=1)
    named = zip(map(_label, labels), pictures, strict=True)
    return sheets.labelled([(SOURCE, self.source), *named])


@dataclasses.dataclass(frozen=True)
class _Prepared:
  """The aligned pictures of one edit, the source first, and its settings."""

  original: np.ndarray
  aligned: dict[str, align.Aligned]
  own: dict[str, Any]  # settings of this edit alone

  @property
  def kind(self):
    """Edits of one kind share a batch: they trace once."""
    return set(self.aligned), repr(self.own)


class Editor:
  """A trained stage that edits pictures.

  Attributes:
    recipe: the stage's recipe.
    image_size: side of the aligned pictures in pixels.
    batch_size: pictures edited at once; fewer are filled up to it.
    queries: names of the pictures that an edit takes beside the source.
    knobs: names of its settings; None where the recipe takes any.
  """

  def __init__(
    self,
    recipe: recipe_lib.Recipe,
    variables: Mapping[str, Any],
    frozen: Mapping[str, Any],
    image_size: int,
    *,
    batch_size: int = 1,
    detector: Detector | None = None,
  ):
    """Takes nets that are already loaded; see `from_workdir`."""
    if not trained_lib.can_edit(type(recipe)):
      raise UserError(
        f"{type(recipe).__name__} trains a net for later stages and edits no "
        "pictures; choose another --stage"
      )
    if batch_size < 1:
      raise UserError(f"batch_size is {batch_size}, wanted at least 1")
    self.recipe, self.image_size = recipe, image_size
    self.batch_size, self._detector = batch_size, detector
    self.queries = tuple(getattr(recipe, "queries", ()))
    self.knobs = _knobs(recipe)
    self._variables, self._frozen = variables, frozen
    self._edits: dict[str, Callable] = {}
    find = getattr(recipe, "find_points", None)
    self._reader = jax.jit(find) if find else None

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
    detector: Detector | None = None,
  ) -> "Editor":
    """Loads a trained stage.

    Args:
      workdir: directory of a run of `faceedit_jax.main`.
      config: from `core.config.load`; by default what the run has recorded.
      stage: the last of the config when None.
      ema: average to read; the recipe's main one when None, raw parameters
        when "".
      step: which checkpoint; the newest when None.
      batch_size: pictures edited at once.
      detector: finds five points where none are given; by default the
        recipe's own nets do.

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
    )

  def edit(
    self,
    source: Picture,
    *,
    seed: int = 0,
    landmarks: Landmarks = None,
    aligned: bool = False,
    paste_back: bool = False,
    **given: Any,
  ) -> EditResult:
    """Edits one picture.

    Args:
      source: a file, or uint8 (h, w), (h, w, 3) or (h, w, 4) of any size.
      seed: of the sampling noise.
      landmarks: five points in pixels by file name, or by "source" or query
        for arrays; or a landmarks file (`data_pipelines.landmarks`).
      aligned: the pictures are already framed; they are only cut square.
      paste_back: also put the edit back into the source picture.
      **given: other pictures by query, and settings by knob.

    Returns:
      The edit. It starts from the same noise in every batch of one seed.

    Raises:
      UserError: one line naming the picture or setting at fault.
    """
    row = {k: v for k, v in given.items() if k in self.queries}
    knobs = {k: v for k, v in given.items() if k not in row}
    self.check_knobs(knobs)
    table = find_face.table_of(landmarks)
    item = self._prepare({SOURCE: source, **row}, table, aligned)
    return self._run([item], seed, knobs, paste_back)[0]

  def edit_many(
    self,
    rows: Iterable[Mapping[str, Picture]],
    *,
    seed: int = 0,
    landmarks: Landmarks = None,
    aligned: bool = False,
    paste_back: bool = False,
    **knobs: Any,
  ) -> Iterator[EditResult | UserError]:
    """Edits many pictures, `batch_size` at once.

    Args:
      rows: {"source": picture, query: picture, ...}, with settings of that row
        alone among them; None and "" are left out.
      seed, landmarks, aligned, paste_back: as in `edit`.
      **knobs: settings of all rows that have no own.

    Returns:
      An iterator of results in the order of the rows. In place of a row whose
      pictures or own settings cannot be used comes the UserError that says why.

    Raises:
      UserError: one line, for a setting or landmarks file that is wrong.
    """
    self.check_knobs(knobs)
    table = find_face.table_of(landmarks)

    def prepare(row):
      try:
        return self._prepare(row, table, aligned)
      except UserError as error:
        return error

    def batches():
      waiting, count, kind = [], 0, None
      for item in map(prepare, rows):
        if isinstance(item, UserError):
          waiting.append(item)
        else:
          if count == self.batch_size or (count and kind != item.kind):
            yield waiting
            waiting, count = [], 0
          waiting.append(item)
          count, kind = count + 1, item.kind
        if not count or count == self.batch_size:
          yield waiting
          waiting, count = [], 0
      yield waiting

    def results():
      for batch in batches():
        good = [item for item in batch if isinstance(item, _Prepared)]
        try:
          made = self._run(good, seed, knobs, paste_back) if good else ()
        except UserError as error:
          if not good[0].own:
            raise
          made = [error] * len(good)
        done = iter(made)
        for item in batch:
          yield next(done) if isinstance(item, _Prepared) else item

    return results()

  def find_points(self, picture) -> np.ndarray:
    """Five points (5, 2) in pixels of the face in a picture of any size.

    Args:
      picture: path, or uint8 (h, w, 3).

    Raises:
      UserError: no face was found, or the picture cannot be read.
    """
    try:
      return self._find(find_face.load(picture, "picture"))
    except align.AlignError as error:
      raise UserError(str(error)) from error

  def check_knobs(self, knobs: Mapping[str, Any]) -> None:
    """Raises a UserError for names that are neither query nor knob."""
    check_knobs(self.recipe, knobs, self.queries)

  def _prepare(self, row, table, aligned) -> _Prepared:
    """Reads and aligns the pictures of one edit."""
    row = {
      k: v
      for k, v in row.items()
      if v is not None and not (isinstance(v, str) and not v)
    }
    names = (SOURCE, *self.queries)
    own = {k: v for k, v in row.items() if k not in names}
    self.check_knobs(own)
    if SOURCE not in row:
      raise UserError(
        f"edit lacks {SOURCE!r}; wanted it and any of {list(self.queries)}"
      )
    row = {k: v for k, v in row.items() if k in names}
    loaded = {k: find_face.load(v, k) for k, v in row.items()}
    squares = {
      name: self._square(loaded[name], row[name], name, table, aligned)
      for name in (SOURCE, *[q for q in self.queries if q in row])
    }
    return _Prepared(loaded[SOURCE], squares, own)

  def _square(self, image, picture, role, table, aligned) -> align.Aligned:
    """Cuts the square round the face of a picture."""
    size, template = self.image_size, align.template(self.recipe.alignment)
    if aligned:
      return align.centre_square(image, size, template)
    points = find_face.listed(table, picture, role)
    name = role if isinstance(picture, np.ndarray) else os.fspath(picture)
    try:
      if points is None:
        points = self._find(image)
      return align.align(image, align.check_points(points), size, template)
    except align.AlignError as error:
      raise UserError(f"{name}: {error}") from error

  def _find(self, image: np.ndarray) -> np.ndarray:
    """Five points in pixels, by the detector or the recipe's own nets."""
    advice = "give five points with --landmarks=FILE, or --aligned if it is cut"
    if self._detector is not None:
      points = self._detector(image)
      if points is not None:
        return points
      problem = "no face found by the detector"
    elif self._reader is None:
      problem = f"{type(self.recipe).__name__} has no net that finds faces"
    else:
      try:
        return find_face.find(self._read, image, self.image_size).points
      except align.AlignError as error:
        problem = str(error)
    raise align.AlignError(f"{problem}; {advice}")

  def _read(self, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The recipe's reader on up to VIEWS squares; it compiles once."""
    count = len(views)
    views = _batch(views, find_face.VIEWS)
    points, scores = self._reader(self._variables, self._frozen, views)
    return np.asarray(points)[:count], np.asarray(scores)[:count]

  def _run(self, items, seed, knobs, paste_back) -> list[EditResult]:
    """Edits up to `batch_size` prepared pictures."""
    inputs = {
      name: _batch([i.aligned[name].image for i in items], self.batch_size)
      for name in items[0].aligned
    }
    # Noise is drawn by row; every picture gets that of a lone edit.
    inputs["row"] = np.zeros(self.batch_size, np.int32)
    given = _settings(self.recipe, {**knobs, **items[0].own})
    traced = {
      k: jax.tree.map(float, v)
      for k, v in given.items()
      if k in self.recipe.sliders
      and _are_numbers(v)
      and isinstance(v, list | tuple) == _takes_a_list(self.recipe, k)
    }
    fixed = {k: v for k, v in given.items() if k not in traced}
    key = repr(sorted(fixed.items()))
    if key not in self._edits:
      self._edits[key] = jax.jit(functools.partial(_edit, self.recipe, fixed))
    try:
      outputs, shown = jax.device_get(
        self._edits[key](
          self._variables, self._frozen, inputs, jax.random.key(seed), traced
        )
      )
    # A knob that the recipe cannot use, or a seed out of range.
    except (ValueError, TypeError, OverflowError) as error:
      text = " ".join(str(error).split())
      raise UserError(f"edit with {given}: {text}") from error
    return [
      self._result(
        item,
        {k: v[i] for k, v in outputs.items()},
        {k: v[i] for k, v in shown.items()},
        given,
        paste_back,
      )
      for i, item in enumerate(items)
    ]

  def _result(self, item, outputs, shown, settings, paste_back) -> EditResult:
    picture = outputs.pop("image")
    if not np.isfinite(picture).all():
      raise UserError(
        "the edit holds values that are no numbers: the checkpoint has "
        "diverged; choose an earlier one or another --stage"
      )
    image, source = writers.to_uint8(picture), item.aligned[SOURCE]
    pasted = None
    if paste_back:
      mask = outputs.get("mask")
      if mask is not None:
        mask = np.asarray(mask, np.float32).reshape(image.shape[:2])
      pasted = align.paste_back(item.original, image, source.matrix, mask)
    pictures = {
      name: sheets.picture_of(value)
      for name, value in {**outputs, **shown}.items()
    }
    points = source.landmarks5.astype(np.float64) * self.image_size
    return EditResult(
      image=image,
      source=source.image,
      queries={k: v.image for k, v in item.aligned.items() if k != SOURCE},
      points=align.transform_points(align.invert(source.matrix), points),
      matrix=source.matrix,
      pasted=pasted,
      outputs=outputs,
      shown={k: v for k, v in pictures.items() if v is not None},
      settings=settings,
    )


def _edit(recipe, knobs, variables, frozen, inputs, rng, traced):
  """The recipe's edit, and its own colours for what is no picture."""
  knobs = {**knobs, **traced}
  outputs = dict(recipe.edit(variables, frozen, inputs, rng, **knobs))
  count = inputs[SOURCE].shape[0]
  outputs = {
    k: v
    for k, v in outputs.items()
    if getattr(v, "ndim", 0) and v.shape[0] == count
  }
  paint = getattr(recipe, "paint", None)
  return outputs, dict(paint(variables, outputs)) if paint else {}


def _settings(recipe, knobs: Mapping[str, Any]) -> dict[str, Any]:
  """The settings that are given; one number for a list is a list of one."""
  given = {}
  for name, value in knobs.items():
    if isinstance(value, np.ndarray | np.generic):
      value = value.tolist()
    one = _are_numbers(value) and not isinstance(value, list | tuple)
    if one and _takes_a_list(recipe, name):
      value = (value,)
    if value is not None:
      given[name] = value
  return given


def _takes_a_list(recipe, name: str) -> bool:
  """Whether a setting of `recipe.edit` is a tuple by default."""
  known = inspect.signature(recipe.edit).parameters
  return name in known and isinstance(known[name].default, tuple)


def _are_numbers(value: Any) -> bool:
  """Whether a setting is a finite number or a list of them."""
  values = value if isinstance(value, list | tuple) else (value,)
  return all(type(v) in (int, float) and math.isfinite(v) for v in values)


def _label(value: Any) -> str:
  """A number without noise digits, and without the sign of -0."""
  return f"{value + 0.0:.4g}" if isinstance(value, int | float) else str(value)


def _batch(pictures: Sequence[np.ndarray], size: int) -> np.ndarray:
  """Bytes (n, s, s, 3) as [-1, 1], filled up to `size` with the last one."""
  batch = np.stack(pictures).astype(np.float32) / 127.5 - 1.0
  return np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), 0)])


def check_knobs(
  recipe: recipe_lib.Recipe,
  knobs: Mapping[str, Any],
  queries: Sequence[str] = (),
) -> None:
  """Raises a UserError for names that `recipe.edit` does not know."""
  names = _knobs(recipe)
  for name in knobs:
    if names is not None and name not in names:
      known = [*queries, *names]
      near = difflib.get_close_matches(name, known, n=1)
      hint = f"did you mean {near[0]}?" if near else f"it knows {known}"
      raise UserError(
        f"{type(recipe).__name__} has no query or setting {name!r}; {hint}"
      )


def _knobs(recipe: recipe_lib.Recipe) -> tuple[str, ...] | None:
  """Names of the keyword settings of `recipe.edit`."""
  parameters = inspect.signature(recipe.edit).parameters.values()
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return None
  return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
