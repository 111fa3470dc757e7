"""A trained toy run and two portraits, for tests of editing."""

import pytest

from faceedit_jax.editing import Editor
from tests.editing import toy_editor


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
  """Both stages as a finished run leaves them."""
  folder = tmp_path_factory.mktemp("run")
  return toy_editor.save_run(folder, toy_editor.config_of())


@pytest.fixture(scope="module")
def editor(workdir):
  return Editor.from_workdir(workdir, batch_size=2)


@pytest.fixture
def files(tmp_path):
  """A folder with a.png and b.png."""
  return toy_editor.write_portraits(tmp_path)
