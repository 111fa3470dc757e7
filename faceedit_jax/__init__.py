"""Face editing systems in JAX/Flax: training, evaluation, editing, export."""

from faceedit_jax import jax_versions

__version__ = "0.1.0"

jax_versions.prepare()
