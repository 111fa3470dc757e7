"""Editing with a trained stage from Python."""

from faceedit_jax.editing.editor import Editor
from faceedit_jax.editing.result import EditResult

__all__ = ["EditResult", "Editor"]
