"""Versions of JAX that compute wrongly: refused, or given the flag they need.

pip leaves the refused ones out by itself (pyproject.toml has the same bounds);
this is for environments made otherwise. docs/arithmetic.md says how each was
found.
"""

import os
import sys
from importlib import metadata

# {version of jaxlib: what is wrong with it}
WRONG = {
  "0.10.1": "it computes some compiled gradients wrong by 0.3 % on CPUs",
  "0.11.0": "it crashes in some compiled sums on CPUs (jax issue 39257) and "
  "gives wrong numbers on some GPUs (jax issue 40633)",
  "0.11.1": "it gives wrong numbers on some GPUs (jax issue 40633)",
}
SUPPORTED = ">=0.10.2,!=0.11.0,!=0.11.1,<0.13"

# {version of jaxlib: the flag of XLA without which it computes some compiled
# products wrong on CPUs (jax issue 39103)}. Other versions may not know the
# flag, and XLA refuses what it does not know.
FLAGS = {"0.10.2": "--xla_cpu_experimental_ynn_fusion_type="}


def prepare() -> None:
  """Looks at the installed jaxlib without importing it; sets its flag.

  Raises:
    ImportError: one line: the version, what is wrong with it and what to do. A
      version that nothing is known against is not refused.
  """
  try:
    found = metadata.version("jaxlib")
  except metadata.PackageNotFoundError:
    return  # importing jax says so, and better
  if found in WRONG:
    _refuse(
      f"jaxlib {found} is installed, and {WRONG[found]}; "
      f"run: pip install 'jax{SUPPORTED}' 'jaxlib{SUPPORTED}'"
    )
  flag = FLAGS.get(found)
  flags = os.environ.get("XLA_FLAGS", "")
  if flag is None or flag.rstrip("=") in flags:
    return
  if _jax_has_started():
    _refuse(
      f"jaxlib {found} computes some products wrong on CPUs unless "
      f"XLA_FLAGS has {flag}, and JAX has started without; import faceedit_jax "
      "before the first computation, or set XLA_FLAGS yourself"
    )
  os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def _jax_has_started() -> bool:
  """Whether JAX has read its flags already; asked of exact versions alone."""
  bridge = sys.modules.get("jax._src.xla_bridge")
  return bridge is not None and bridge.backends_are_initialized()


def _refuse(message: str):
  # With the package's own name, `python -m faceedit_jax.main` prints this line
  # alone.
  raise ImportError(message, name="faceedit_jax")
