"""The guide to a new method, as its reader would follow it."""

import re
import sys
import types

import jax
import pytest

from faceedit_jax import evaluators, stages
from faceedit_jax.core import config as config_lib
from faceedit_jax.core import editing
from faceedit_jax.core import state as state_lib
from faceedit_jax.core import step as step_lib


def code_blocks(path):
  """The indented Python files of a page: those that begin with a docstring."""
  text = path.read_text(encoding="utf-8")
  blocks = re.findall(r"(?:^ {4}.*\n|^\n)+", text, re.MULTILINE)
  lines = [re.sub(r"^ {4}", "", b, flags=re.MULTILINE).strip() for b in blocks]
  return [block for block in lines if block.startswith('"""')]


@pytest.fixture
def guide(root, monkeypatch):
  """The guide's modules, importable: recipe, config, evaluator."""
  made = []
  for i, code in enumerate(code_blocks(root / "docs/extending.md")):
    module = types.ModuleType(f"guide_{i}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, module.__name__, "exec"), module.__dict__)
    made.append(module)
  return made


def test_the_method_of_the_guide_is_built_edits_and_is_evaluated(
  guide, tmp_path
):
  recipe, config, evaluator = guide
  made = config.get_config()
  made.image_size = 8
  made.stage.ae.recipe.name = f"{recipe.__name__}:TinyRecipe"
  kind = f"{evaluator.__name__}:ReconstructionError"
  made.stage.ae.evaluators = dict(error=dict(kind=kind, level=0.5))
  stage = stages.make_stage(config_lib.from_dict(made), "ae", tmp_path)
  state = step_lib.init_state(stage.recipe, jax.random.key(0))
  assert set(state.params) == {"enc", "dec"}
  assert editing.editable(stage.recipe).edit_inputs[0].field == "source"
  ctx = evaluators.EvalContext(
    recipe=stage.recipe,
    variables=state_lib.view(state),
    frozen={},
    data_dir=tmp_path,
    out_dir=tmp_path,
    log=print,
  )
  error = stage.evaluators["error"].run(ctx)["l1"]
  assert 0 < error < 2
