"""Fixtures of the tests on weight files."""

import sys

import pytest


@pytest.fixture
def trap(tmp_path, monkeypatch):
  """A module that says when it is imported, or any of it is called."""
  folder = tmp_path / "site"
  folder.mkdir()
  (folder / "trap_module.py").write_text(
    "import pathlib\n"
    f"touched = pathlib.Path({str(tmp_path / 'touched')!r})\n"
    "touched.touch()\n"
    "class Evil:\n"
    "  def __init__(self, *args): touched.touch()\n"
    "  def __new__(cls, *args): touched.touch()\n"
    "  def __setstate__(self, state): touched.touch()\n"
    "  def __reduce__(self): touched.touch()\n"
    "def run(*args): touched.touch()\n"
  )
  monkeypatch.syspath_prepend(str(folder))
  yield tmp_path / "touched"
  assert "trap_module" not in sys.modules
  assert not (tmp_path / "touched").exists()
