"""Settings and fixtures shared by all tests.

The environment is set before anything imports JAX: eight CPU devices, so that
sharded code is tested everywhere, and one compilation cache for all runs.
"""

import os
import pathlib
import tempfile

os.environ["JAX_PLATFORMS"] = os.environ.get("FACEEDIT_TEST_PLATFORM", "cpu")
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR",
  os.path.join(tempfile.gettempdir(), "faceedit_jax_test_cache"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_DEVICES = "--xla_force_host_platform_device_count=8"
if "xla_force_host_platform_device_count" not in os.environ.get(
  "XLA_FLAGS", ""
):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}"

# Versions of JAX that need a flag get it here, as in every program.
import numpy as np  # noqa: E402
import pytest  # noqa: E402

import faceedit_jax  # noqa: E402, F401
from data_pipelines.detectors import registry  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
  # pytest has a flag --fixtures of its own, which takes no value.
  parser.addoption(
    "--fixtures-dir",
    help="folder of recorded cases for tests/parity (default: the copies "
    "there, and ../shared/fixtures)",
  )


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
  """The top folder of the project."""
  return ROOT


@pytest.fixture(scope="session", autouse=True)
def no_detector_is_installed():
  """Tests do the same wherever they run; those of detectors name theirs."""
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(registry, "DETECTORS", {})
    yield


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
  """The ../shared folder of real portraits and fixtures, or a skip."""
  path = pathlib.Path(
    os.environ.get("FACEEDIT_SHARED", str(ROOT.parent / "shared"))
  )
  if not path.is_dir():
    pytest.skip(f"no folder {path}; set FACEEDIT_SHARED to run these tests")
  return path


@pytest.fixture
def rng() -> np.random.Generator:
  """A fixed NumPy generator, fresh for every test."""
  return np.random.default_rng(0)
