"""The shape of the project: arrows point down, methods stay in recipes."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = ("faceedit_jax", "data_pipelines", "configs", "tests")
MAX_LINES = 500

TYPING = "faceedit_jax.core.typing"
PACKAGE = "faceedit_jax"
# What the files of a layer may import of the project, themselves included.
ALLOWED = {
  "core": {"core"},
  "nn": {"nn", TYPING},
  "files": {"files"},
  "morphable": {"morphable", "files", TYPING},
  "diffusion": {"diffusion", "nn", TYPING},
  "losses": {"losses", "nn", TYPING},
  "models": {"models", "nn", TYPING},
  "weights": {"weights", "files", "models", "nn", TYPING},
  "metrics": {"metrics", "losses", "models", "morphable", "nn", TYPING},
  "faces": {
    "faces",
    "models",
    "diffusion",
    "losses",
    "morphable",
    "nn",
    "core",
  },
  "recipes": {
    "recipes",
    "faces",
    "models",
    "diffusion",
    "losses",
    "morphable",
    "nn",
    "core",
  },
  "evaluators": {
    "evaluators",
    "metrics",
    "faces",
    "models",
    "losses",
    "morphable",
    "nn",
    "core",
    # They read their test split.
    "data_pipelines",
  },
  "editing": {"editing", "core", "top", "data_pipelines"},
  "top": {
    "top",
    "core",
    "recipes",
    "evaluators",
    "editing",
    "morphable",
    "weights",
    "data_pipelines",
  },
  "data_pipelines": {"data_pipelines", "morphable", TYPING},
}
# The top layer knows recipes and evaluators through their registries. These
# two build nets.
BUILDERS = {"annotate.py": {"models", "nn"}, "convert.py": {"models", "nn"}}
# Names of methods, in one word, apart, or with anything but letters between.
METHOD = re.compile(
  r"(?i:diff[\W_]*fae|star[\W_]*gan|diffusion[\W_]*(?:driven[\W_]*)?gan)"
  r"|(?i:(?<![a-z])(?:lat[\W_]*ref(?!er)|gan[\W_]*inversion))"
  r"|LatRef|GANInversion|(?<![A-Za-z])[lL]2[mM](?:gan)?(?![a-z])|L2M"
)
# Files and folders that serve every method alike.
GENERIC = (
  "faceedit_jax/core",
  "faceedit_jax/nn",
  "faceedit_jax/train.py",
  "faceedit_jax/stages.py",
  "faceedit_jax/input_pipeline.py",
  "faceedit_jax/feature_cache.py",
  "faceedit_jax/main.py",
  "faceedit_jax/evaluate.py",
  "faceedit_jax/edit.py",
  "faceedit_jax/editing",
  "faceedit_jax/load_trained.py",
  "faceedit_jax/export.py",
  "data_pipelines",
)
# Functions of so many statements, or more, are in the package once.
COPIED = 5


def python_files(*tops):
  """All Python files under the given paths."""
  found = []
  for top in tops:
    path = ROOT / top
    found += [path] if path.is_file() else sorted(path.rglob("*.py"))
  return found


def name_of(path):
  """Dotted module name of a file."""
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name):
  path = ROOT / name.replace(".", "/")
  return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(tree, module_level=False):
  """Dotted names that a module imports; `from a import b` gives a.b or a."""
  for node in walk(tree, into_functions=not module_level):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "imports are absolute"
      for alias in node.names:
        whole = f"{node.module}.{alias.name}"
        ours = whole.split(".")[0] in SOURCES
        yield whole if not ours or is_module(whole) else node.module


def walk(node, into_functions=True):
  """`ast.walk`, on request without function bodies and type-only imports."""
  yield node
  for child in ast.iter_child_nodes(node):
    lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
      isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
    )
    if into_functions or not lazy:
      yield from walk(child, into_functions)


def layer_of(module):
  """The layer that a module of the project belongs to, or None."""
  parts = module.split(".")
  if parts[0] == "data_pipelines":
    return "data_pipelines"
  if parts[0] != PACKAGE:
    return None
  return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "top"


def forbidden_imports(module, tree, allowed):
  """What a module imports against the arrows."""
  wrong = []
  for name in imports(tree):
    layer = layer_of(name)
    if layer is None or name == PACKAGE:
      if name.split(".")[0] in ("configs", "tests"):
        wrong.append(name)
    elif layer not in allowed and not (TYPING in allowed and name == TYPING):
      wrong.append(name)
    elif layer_of(module) == "top" and layer in ("recipes", "evaluators"):
      if name != f"faceedit_jax.{layer}":
        wrong.append(name)
  return wrong


def named_methods(tree):
  """Identifiers, imports and texts that name a method; docstrings are free."""
  free = {
    id(node.value)
    for node in ast.walk(tree)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
  }
  words = []
  for node in ast.walk(tree):
    if id(node) not in free:
      for _, value in ast.iter_fields(node):
        words += value if isinstance(value, list) else [value]
  return [w for w in map(_text, words) if METHOD.search(w)]


def _text(word):
  if isinstance(word, bytes):
    return word.decode(errors="ignore")
  return word if isinstance(word, str) else ""


def functions(tree):
  """(normalised code, name) of the functions of COPIED statements or more.

  Two functions with the same code do the same under other names: their own,
  those of what they take and those of what they assign.
  """
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      below = [n for n in ast.walk(node) if isinstance(n, ast.stmt)]
      # The function itself is one of them.
      if sum(not _is_text(n) for n in below) - 1 >= COPIED:
        yield _normalised(node), node.name


def _is_text(node):
  return (
    isinstance(node, ast.Expr)
    and isinstance(node.value, ast.Constant)
    and isinstance(node.value.value, str)
  )


def _normalised(function):
  """A function's code without docstrings, types and names of its own."""
  tree = ast.parse(ast.unparse(function))
  own = {}

  def rename(name):
    own.setdefault(name, f"name{len(own)}")

  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      rename(node.name)
      node.decorator_list, node.returns = [], None
    elif isinstance(node, ast.arg):
      rename(node.arg)
      node.annotation = None
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
      rename(node.id)
    elif isinstance(node, ast.ExceptHandler) and node.name:
      rename(node.name)
    if isinstance(getattr(node, "body", None), list):
      node.body = [child for child in node.body if not _is_text(child)]
  for node in ast.walk(tree):
    for field in ("id", "arg", "name"):
      name = getattr(node, field, None)
      if name in own and not isinstance(node, ast.keyword):
        setattr(node, field, own[name])
  return ast.dump(tree)


def copies(trees):
  """Pairs "place: name" of functions that are copies; {place: tree} given."""
  found, seen = [], {}
  for place, tree in trees.items():
    for code, name in functions(tree):
      here = f"{place}: {name}"
      if code in seen:
        found.append((seen[code], here))
      seen.setdefault(code, here)
  return found


def parse(path):
  return ast.parse(path.read_text(encoding="utf-8"))


def test_the_tree_is_there():
  files = python_files(*SOURCES)
  layers = {layer_of(name_of(path)) for path in files}
  assert set(ALLOWED) <= layers | {"weights", "metrics"}
  assert {str(p.relative_to(ROOT)) for p in files} >= {
    "faceedit_jax/core/step.py",
    "faceedit_jax/train.py",
  }


def test_arrows_point_down():
  wrong = {}
  for path in python_files("faceedit_jax", "data_pipelines"):
    module = name_of(path)
    allowed = ALLOWED[layer_of(module)] | BUILDERS.get(path.name, set())
    found = forbidden_imports(module, parse(path), allowed)
    if found:
      wrong[str(path.relative_to(ROOT))] = found
  assert not wrong


def test_no_import_circles():
  graph = {}
  for path in python_files("faceedit_jax", "data_pipelines", "configs"):
    module = name_of(path)
    names = set(imports(parse(path)))
    graph[module] = {n for n in names if is_module(n) and n != module}
  done, active = set(), []

  def visit(module):
    if module in active:
      circle = " -> ".join([*active[active.index(module) :], module])
      pytest.fail(f"modules import each other: {circle}")
    if module in done or module not in graph:
      return
    active.append(module)
    for name in sorted(graph[module]):
      visit(name)
    active.pop()
    done.add(module)

  for module in graph:
    visit(module)


def test_core_knows_no_layers():
  for path in python_files("faceedit_jax/core"):
    for name in imports(parse(path)):
      assert not name.startswith(("flax.linen", "flax.nnx")), path


def test_generic_code_names_no_method():
  wrong = {}
  for path in python_files(*GENERIC):
    name = str(path.relative_to(ROOT))
    found = named_methods(parse(path)) + METHOD.findall(name)
    if found:
      wrong[name] = found
  assert not wrong


def test_no_function_is_there_twice():
  files = python_files("faceedit_jax", "data_pipelines")
  trees = {str(path.relative_to(ROOT)): parse(path) for path in files}
  assert not copies(trees)


def test_the_drawing_names_every_entry():
  drawing = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
  tree = drawing.partition("## Arrows")[0]
  words = set(re.findall(r"^ +([\w.]+/?) ", tree, re.MULTILINE))
  missing = []
  for top in ("faceedit_jax", "faceedit_jax/models", "data_pipelines"):
    for path in sorted((ROOT / top).iterdir()):
      package = (path / "__init__.py").is_file()
      name = f"{path.name}/" if package else path.name
      hidden = path.name.startswith("_")
      if (package or path.suffix == ".py") and not hidden and name not in words:
        missing.append(f"{top}/{name}")
  assert not missing


def test_files_are_short():
  long = {
    str(path.relative_to(ROOT)): lines
    for path in python_files(*SOURCES)
    if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
  }
  assert not long


@pytest.mark.parametrize(
  "module, code",
  [
    ("faceedit_jax.nn.x", "from faceedit_jax.models import unet"),
    ("faceedit_jax.nn.x", "from faceedit_jax.core import step"),
    ("faceedit_jax.core.x", "import faceedit_jax.recipes"),
    ("faceedit_jax.models.x", "def f():\n  from faceedit_jax import train"),
    ("faceedit_jax.train", "from faceedit_jax.models import unet"),
    ("faceedit_jax.train", "from faceedit_jax.recipes.l2m_gan import nets"),
    ("faceedit_jax.train", "from faceedit_jax.evaluators import attributes"),
    ("faceedit_jax.recipes.x", "from faceedit_jax import evaluators"),
    ("faceedit_jax.recipes.x", "from faceedit_jax.metrics import fid"),
    ("faceedit_jax.recipes.x", "from data_pipelines import sources"),
    ("faceedit_jax.evaluators.x", "from faceedit_jax import recipes"),
    ("faceedit_jax.faces.x", "from faceedit_jax.recipes import pretrain"),
    ("faceedit_jax.editing.x", "from faceedit_jax.models.gan import x"),
    ("faceedit_jax.nn.x", "from tests import toy_recipes"),
    ("data_pipelines.x", "from faceedit_jax.core import step"),
  ],
)
def test_the_arrow_check_finds(module, code):
  allowed = ALLOWED[layer_of(module)]
  assert forbidden_imports(module, ast.parse(code), allowed)


@pytest.mark.parametrize(
  "module, code",
  [
    ("faceedit_jax.nn.x", "from faceedit_jax.core.typing import Array"),
    ("faceedit_jax.train", "from faceedit_jax import recipes"),
    ("faceedit_jax.train", "from faceedit_jax.core import step"),
    ("data_pipelines.x", "from faceedit_jax.morphable import procedural"),
  ],
)
def test_the_arrow_check_lets_pass(module, code):
  allowed = ALLOWED[layer_of(module)]
  assert not forbidden_imports(module, ast.parse(code), allowed)


@pytest.mark.parametrize(
  "code",
  [
    "from faceedit_jax.recipes import difffae",
    "from faceedit_jax.recipes.l2m_gan import L as R",
    "import faceedit_jax.recipes.stargan",
    "kind = 'l2m'",
    "kind = b'l2m'",
    "kind = 'the L2M-GAN of 2021'",
    "class L2MGan: pass",
    "class StarGANv2: pass",
    "def edit(latref_scale): pass",
    "def diffusion_gan(): pass",
    "def f():\n  global star_gan",
    "x.gan_inversion",
    "f(f'{x} DiffFAE')",
    "f(l2m=1)",
    "import a as difffae",
    "match x:\n  case {'a': 1, **latref}: pass",
    "def f():\n  'Docstring.'\n  return 'LatRef-Diff'",
  ],
)
def test_the_name_check_finds(code):
  assert named_methods(ast.parse(code))


@pytest.mark.parametrize(
  "code",
  [
    '"""As DiffFAE does."""\npixel2mask = "a"  # l2m',
    "class A:\n  'After StarGAN v2.'\n  def f(self):\n    'L2M-GAN.'",
    "label2map, l2_mean, flat_reference, restart_gang = 'began inversions'",
  ],
)
def test_the_name_check_leaves_docstrings_and_other_words(code):
  assert not named_methods(ast.parse(code))


HELPER = """
def read(source, names):
  'Reads.'
  found = {}
  for name in names:
    value = source[name]
    try:
      found[name] = value * 2
    except TypeError as error:
      raise KeyError(name) from error
  return found
"""
RENAMED = """
class Recipe:
  @staticmethod
  def _collect(table: dict, columns: tuple) -> dict:
    'Another docstring.'
    made = {}
    for column in columns:
      entry = table[column]
      try:
        made[column] = entry * 2
      except TypeError as wrong:
        raise KeyError(column) from wrong
    return made
"""


@pytest.mark.parametrize(
  "old, new",
  [
    (None, None),
    ("* 2", "* 3"),
    ("KeyError", "ValueError"),
    ("entry * 2", "table * 2"),
  ],
)
def test_the_copy_check(old, new):
  other = RENAMED.replace(old, new) if old else RENAMED
  assert (other != RENAMED) == bool(old)
  trees = {"a.py": ast.parse(HELPER), "b.py": ast.parse(other)}
  wanted = [] if old else [("a.py: read", "b.py: _collect")]
  assert copies(trees) == wanted


def test_the_copy_check_looks_within_a_file():
  assert copies({"a.py": ast.parse(HELPER + RENAMED)})


def test_the_copy_check_leaves_short_functions():
  short = "def f(a):\n  b = a\n  c = b\n  d = c\n  return d"
  long = "def f(a):\n  b = a\n  c = b\n  d = c\n  e = d\n  return e"
  for code, found in ((short, False), (long, True)):
    trees = {name: ast.parse(code) for name in ("a.py", "b.py")}
    assert bool(copies(trees)) == found
