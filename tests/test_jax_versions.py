"""Versions of JAX that compute wrongly are neither installed nor accepted."""

import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from faceedit_jax import jax_versions


def jax_requirements(root):
  """{name in pyproject.toml, with its extras: versions it allows}."""
  project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
  lines = list(project["dependencies"])
  for extra in project["optional-dependencies"].values():
    lines += extra
  found = {}
  for requirement in map(Requirement, lines):
    if requirement.name.startswith("jax") and requirement.name != "jaxtyping":
      extras = ",".join(requirement.extras)
      found[f"{requirement.name}[{extras}]"] = requirement.specifier
  return found


def test_every_requirement_of_jax_has_the_same_bounds(root):
  found = jax_requirements(root)
  assert {"jax[]", "jaxlib[]", "jax[tpu]", "jax[cuda12]"} <= set(found)
  assert set(found.values()) == {SpecifierSet(jax_versions.SUPPORTED)}


def test_what_is_wrong_is_not_supported_and_what_is_installed_is():
  supported = SpecifierSet(jax_versions.SUPPORTED)
  for version in jax_versions.WRONG:
    assert version not in supported
  assert metadata.version("jaxlib") in supported


@pytest.mark.parametrize("version", sorted(jax_versions.WRONG))
def test_a_wrong_version_is_refused_in_one_line(version, tmp_path, root):
  """The command is run where such a version seems to be installed."""
  info = tmp_path / f"jaxlib-{version}.dist-info"
  info.mkdir()
  (info / "METADATA").write_text(
    f"Metadata-Version: 2.1\nName: jaxlib\nVersion: {version}\n"
  )
  done = subprocess.run(
    [sys.executable, "-m", "faceedit_jax.main", "--help"],
    capture_output=True,
    text=True,
    cwd=root,
    env={"PYTHONPATH": str(tmp_path)},
  )
  assert done.returncode != 0
  (line,) = done.stderr.strip().splitlines()
  assert f"jaxlib {version} is installed" in line
  assert f"pip install 'jax{jax_versions.SUPPORTED}'" in line


def test_without_jaxlib_the_import_of_jax_speaks(monkeypatch):
  def missing(name):
    raise metadata.PackageNotFoundError(name)

  monkeypatch.setattr(metadata, "version", missing)
  jax_versions.check()
