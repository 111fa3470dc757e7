"""The shape of the project: arrows point down, methods stay in recipes."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = ("faceedit_jax", "data_pipelines", "configs", "tests")
MAX_LINES = 600

TYPING = "faceedit_jax.core.typing"
PACKAGE = "faceedit_jax"
# What the files of a layer may import of the project, themselves included.
ALLOWED = {
  "core": {"core"},
  "nn": {"nn", TYPING},
  "morphable": {"morphable", TYPING},
  "diffusion": {"diffusion", "nn", TYPING},
  "losses": {"losses", "nn", TYPING},
  "models": {"models", "nn", TYPING},
  "weights": {"weights", "models", "nn", TYPING},
  "metrics": {"metrics", "losses", "models", "morphable", "nn", TYPING},
  "recipes": {
    "recipes",
    "models",
    "diffusion",
    "losses",
    "metrics",
    "morphable",
    "weights",
    "nn",
    "core",
    # Evaluators read their test split.
    "data_pipelines",
  },
  "top": {"top", "core", "recipes", "morphable", "weights", "data_pipelines"},
  "data_pipelines": {"data_pipelines", "morphable", TYPING},
}
# The top layer knows recipes through the registry. These two build nets.
BUILDERS = {"annotate.py": {"models", "nn"}, "convert.py": {"models", "nn"}}
METHOD = re.compile(
  r"(?i:difffae|diff_fae|latref|gan_?inversion)|(?<![a-z])l2m|L2M"
)
# Files and folders that serve every method alike.
GENERIC = (
  "faceedit_jax/core",
  "faceedit_jax/nn",
  "faceedit_jax/train.py",
  "faceedit_jax/batches.py",
  "faceedit_jax/main.py",
  "faceedit_jax/evaluate.py",
  "faceedit_jax/edit.py",
  "faceedit_jax/editor.py",
  "faceedit_jax/find_face.py",
  "faceedit_jax/sheets.py",
  "faceedit_jax/trained.py",
  "faceedit_jax/export.py",
  "data_pipelines",
)


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
    elif layer_of(module) == "top" and layer == "recipes":
      if name != "faceedit_jax.recipes":
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
    if isinstance(node, ast.Constant):
      if isinstance(node.value, str) and id(node) not in free:
        words.append(node.value)
      continue
    for field in ("id", "attr", "name", "asname", "arg", "module"):
      value = getattr(node, field, None)
      if isinstance(value, str):
        words.append(value)
  return [word for word in words if METHOD.search(word)]


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
  for path in python_files("faceedit_jax", "data_pipelines"):
    module = name_of(path)
    names = set(imports(parse(path), module_level=True))
    graph[module] = {n for n in names if layer_of(n) and n != module}
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
  wrong = {
    str(path.relative_to(ROOT)): found
    for path in python_files(*GENERIC)
    if (found := named_methods(parse(path)))
  }
  assert not wrong


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
    ("faceedit_jax.train", "from faceedit_jax.recipes import face_reader"),
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
    "kind = 'l2m'",
    "class L2MGan: pass",
    "def edit(latref_scale): pass",
    "x.gan_inversion",
    "f(f'{x} DiffFAE')",
    "import a as difffae",
  ],
)
def test_the_name_check_finds(code):
  assert named_methods(ast.parse(code))


def test_the_name_check_leaves_docstrings_and_other_words():
  code = '"""As DiffFAE does."""\npixel2mask = "a"  # l2m'
  assert not named_methods(ast.parse(code))
