"""Face editing systems in JAX/Flax: training, evaluation, editing, export."""

__version__ = "0.1.0"
