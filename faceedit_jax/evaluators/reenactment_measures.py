"""Measures of edits that need no true outcome: Inception, faces, people.

The measures of DiffFAE Sec. 5.1. A net that is the published one gives a
column its published name; any other puts its own name behind it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import transforms
from faceedit_jax.evaluators import common
from faceedit_jax.evaluators import eval_nets as eval_nets_lib
from faceedit_jax.metrics import fid as fid_lib
from faceedit_jax.metrics import identity as identity_metrics
from faceedit_jax.metrics import reenactment as distances
from faceedit_jax.models.faces import deep3d

# What makes the file of each published net.
FILES = {
  "inception": "inception pt_inception-2015-12-05-6726825d.pth",
  "face": "deep3d epoch_20.pth",
  "identity": "arcface backbone.pth",
}
_READERS = ("estimator", "locator", "identity")


class Measures:
  """Takes in edits batch by batch, and says at the end how they were.

  Args:
    settings: a `reenactment.ReenactmentEvaluator`.
    recipe: finds the five points of faces.
    variables: its trained nets.
    frozen: its frozen nets.
    eval_nets: {net: variables} of `settings.eval_nets()`, or None where they
      are not there yet.

  Raises:
    ValueError: one line: a file that cannot be read.
  """

  def __init__(self, settings, recipe, variables, frozen, eval_nets):
    self._is, self._missing = settings, eval_nets is None
    nets = dict(eval_nets or {})
    if settings.readers == "frozen":
      nets = {n: frozen[n] for n in _READERS if n in frozen} | nets
    self._nets = nets
    self._reference, self._fid, self._sets = None, None, {}
    if settings.fid_reference:
      self._reference = fid_lib.load(settings.fid_reference)
    if "inception" in nets:
      devices = jax.local_devices()
      self._fid = fid_lib.Reader(
        settings.inception,
        nets["inception"],
        settings.fid_rule,
        batch=max(1, common.BATCH // len(devices)),
        devices=devices,
      )
    self._standard, self._astray = None, 0
    if "face" in nets:
      self._standard = deep3d.read_standard_points(settings.standard_points)
    points = jax.jit(recipe.find_points)
    self._points = lambda x: points(variables, frozen, x)[0]
    self._codes = jax.jit(settings.reader.codes)
    self._embed = jax.jit(settings.reader.embed)
    self._face = jax.jit(settings.face.apply)
    self._values: dict[str, list] = {}

  def add(self, edit, source, query):
    """Looks at at most BATCH edits; all pictures (n, s, s, 3) in [-1, 1]."""
    count = len(edit)
    pictures = {"edit": edit, "copy_source": source, "query": query}
    if self._fid is not None:
      for name, picture in pictures.items():
        if name != "query" or self._reference is None:
          state = self._sets.get(name, self._fid.empty())
          found = self._fid(transforms.to_uint8(picture))
          self._sets[name] = state.add(found)
    read, who = {}, {}
    for name, picture in pictures.items():
      picture = jnp.asarray(common.full(picture))
      where = None
      if {"face", "identity"} & set(self._nets):
        where = self._points(picture)
      if "face" in self._nets:
        read[name] = self._coefficients(picture, where, count)
      elif "estimator" in self._nets:
        read[name] = self._codes(self._nets, picture)
      if "identity" in self._nets and name != "query":
        who[name] = self._embed(self._nets, picture, where)
    for method in ("edit", "copy_source"):
      found = {}
      if "face" in self._nets:
        found = distances.coefficient_distances(read[method], read["query"])
      elif read:
        found = distances.code_distances(read[method], read["query"])
      if who:
        found["CSIM"] = identity_metrics.cosine_similarity(
          who[method], who["copy_source"]
        )
      for name, values in found.items():
        kept = self._values.setdefault(f"{method}/{self._column(name)}", [])
        kept.append(np.asarray(values)[:count])

  def _coefficients(self, picture, points, count):
    """(b, 257) of Deep3DFaceRecon; NaN where the points are no face's."""
    images = transforms.to_uint8(np.asarray(picture))
    places = np.asarray(points, np.float64) * images.shape[1]
    crops = np.zeros((len(images), deep3d.SIZE, deep3d.SIZE, 3), np.uint8)
    lost = np.zeros(len(images), bool)
    for i, (image, five) in enumerate(zip(images, places, strict=True)):
      try:
        crops[i] = deep3d.crop(image, five, self._standard)
      except ValueError:
        lost[i] = True
    self._astray += int(lost[:count].sum())
    seen = jnp.asarray(transforms.to_float(crops))
    found = np.array(self._face(self._nets["face"], seen))
    found[lost] = np.nan
    return jnp.asarray(found)

  def _column(self, name):
    settings = self._is
    if name == "CSIM":
      whose = settings.identity_name
      if settings.weights.identity:
        whose = ""
    else:
      whose = "" if "face" in self._nets else settings.estimator_name
    return f"{name}-{whose}" if whose else name

  @property
  def _true(self):
    """Statistics of the pictures that edits should look like."""
    return self._sets["query"] if self._reference is None else self._reference

  def scores(self) -> dict[str, float]:
    """{"method/column": value}, and how many pictures were left out."""
    out = {}
    for method in ("edit", "copy_source"):
      # A covariance needs two.
      if self._fid is not None and self._sets[method].count > 1:
        out[f"{method}/FID"] = fid_lib.fid(self._sets[method], self._true)
    for name, values in self._values.items():
      value = common.mean(values)
      if not np.isnan(value):
        out[name] = value
    if self._astray:
      out["count/pictures_without_points"] = float(self._astray)
    return out

  def keep_reference(self, path):
    """Saves the statistics of the true pictures if they were made here."""
    if self._fid is not None and self._reference is None:
      fid_lib.save(path, self._true)

  def notes(self) -> list[str]:
    """How each column was measured; which are missing, and what they need."""
    return [
      *self._fid_notes(),
      *self._face_notes(),
      *self._identity_notes(),
      "paper: DiffFAE's own numbers, VoxCeleb1, 256 px; it names no number of "
      "pairs, no FID tool and no formula",
    ]

  def _fid_notes(self):
    if self._fid is None:
      return [self._lacking("inception", "FID")]
    settings = self._is
    told = fid_lib.describe(self._sets["edit"], self._true, settings.fid_rule)
    true = settings.fid_reference or "the queries of the pairs"
    return [f"FID: {told}; true pictures: {true}"]

  def _face_notes(self):
    formulas, lines = distances.FORMULAS, []
    if "face" in self._nets:
      what = "coefficients of Deep3DFaceRecon"
    else:
      formulas = distances.CODE_FORMULAS
      lines.append(self._lacking("face", "APD, AED, ALD"))
      what = f"codes of the estimator {self._whose('estimator')}"
    columns = ", ".join(map(self._column, formulas))
    if {"face", "estimator"} & set(self._nets):
      lines.append(f"{columns}: {what}; edit against query")
      lines += [f"  {self._column(n)}: {f}" for n, f in formulas.items()]
    if self._astray:
      lines.append(
        f"  left out: {self._astray} pictures whose five points are no face's"
      )
    return lines

  def _identity_notes(self):
    lines, file = [], self._is.weights.identity
    if self._column("CSIM") != "CSIM" or "identity" not in self._nets:
      lines.append(self._lacking("identity", "CSIM"))
    if "identity" in self._nets:
      net = f"of {file}" if file else self._whose("identity")
      lines.append(
        f"{self._column('CSIM')}: cosine of the embeddings of edit and source "
        f"by the identity net {net}"
      )
    return lines

  def _whose(self, net):
    """Which net reads where no file is given."""
    if self._is.readers == "frozen":
      return "that conditions the edit (which flatters it)"
    return f"of stage {eval_nets_lib.stage_of(net)} (which conditions nothing)"

  def _lacking(self, net, columns):
    """The line for columns whose net is not there."""
    if net in self._is.weights.given() and self._missing:
      return (
        f"{columns}: -, the evaluation nets are not trained yet; "
        "--mode=evaluate trains them"
      )
    more = ""
    if net == "face":
      more = f", similarity_Lm3D_all.mat into {self._is.where}.standard_points"
    return (
      f"{columns}: -, no file. python -m faceedit_jax.convert {FILES[net]} "
      f"--output={net}.safetensors makes it; it goes into "
      f"{self._is.where}.weights.{net}{more}"
    )
