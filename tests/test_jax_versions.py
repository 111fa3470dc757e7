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
  jax_versions.prepare()


FLAG = "--xla_cpu_experimental_ynn_fusion_type="
PROGRAM = """
import os
{before}
import faceedit_jax
print(os.environ.get("XLA_FLAGS"))
"""


def import_it(tmp_path, root, version, before="", flags=None):
  """The process that imports the package where `version` seems installed."""
  info = tmp_path / f"jaxlib-{version}.dist-info"
  info.mkdir()
  (info / "METADATA").write_text(
    f"Metadata-Version: 2.1\nName: jaxlib\nVersion: {version}\n"
  )
  flags = {"XLA_FLAGS": flags} if flags else {}
  return subprocess.run(
    [sys.executable, "-c", PROGRAM.format(before=before)],
    capture_output=True,
    text=True,
    cwd=root,
    env={"PYTHONPATH": f"{tmp_path}:{root}", **flags},
  )


@pytest.mark.parametrize(
  "version, flags, wanted",
  [
    ("0.10.2", None, FLAG),
    ("0.10.2", "--a=1", f"--a=1 {FLAG}"),
    ("0.10.2", f"{FLAG}1", f"{FLAG}1"),  # a choice that stays
    ("0.12.0.1", None, "None"),
    ("0.12.0.1", "--a=1", "--a=1"),
  ],
)
def test_the_flag_is_set_where_exactly_that_version_needs_it(
  version, flags, wanted, tmp_path, root
):
  done = import_it(tmp_path, root, version, flags=flags)
  assert done.stdout.strip() == wanted, done.stderr


STARTED = """
import sys, types
bridge = types.ModuleType("jax._src.xla_bridge")
bridge.backends_are_initialized = lambda: {started}
sys.modules["jax._src.xla_bridge"] = bridge
"""


@pytest.mark.parametrize("started", [True, False])
def test_it_is_too_late_once_jax_has_started(started, tmp_path, root):
  before = STARTED.format(started=started)
  done = import_it(tmp_path, root, "0.10.2", before)
  if started:
    assert "import faceedit_jax before the first computation" in done.stderr
  else:
    assert done.stdout.strip() == FLAG


def test_the_name_of_that_module_is_jaxs_own():
  from jax._src import xla_bridge  # noqa: PLC0415

  assert isinstance(xla_bridge.backends_are_initialized(), bool)
