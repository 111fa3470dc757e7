"""Refuses versions of JAX that are known to compute wrongly.

pip leaves them out by itself (pyproject.toml has the same bounds); this is for
environments made otherwise. docs/arithmetic.md says how each was found.
"""

from importlib import metadata

# {version of jaxlib: what is wrong with it}
WRONG = {
  "0.10.2": "it computes some compiled products wrong on CPUs, without an "
  "error (jax issue 39103)",
  "0.11.0": "it crashes in some compiled sums on CPUs (jax issue 39257) and "
  "gives wrong numbers on some GPUs (jax issue 40633)",
  "0.11.1": "it gives wrong numbers on some GPUs (jax issue 40633)",
}
SUPPORTED = ">=0.10.1,!=0.10.2,!=0.11.0,!=0.11.1,<0.13"


def check() -> None:
  """Looks at the installed jaxlib without importing it.

  Raises:
    ImportError: one line: the version, what is wrong with it and what to
      install. A version that nothing is known against is not refused.
  """
  try:
    found = metadata.version("jaxlib")
  except metadata.PackageNotFoundError:
    return  # importing jax says so, and better
  if found in WRONG:
    raise ImportError(
      f"jaxlib {found} is installed, and {WRONG[found]}; "
      f"run: pip install 'jax{SUPPORTED}' 'jaxlib{SUPPORTED}'",
      # With the package's own name, `python -m faceedit_jax.main` prints this
      # line alone.
      name="faceedit_jax",
    )
