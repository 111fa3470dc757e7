"""Slot attention: tokens compete for the pixels of a feature map.

DiffFAE Sec. 4.2 (region-responsive encoder); the published implementations
differ in a few places, and each of them is a field here.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from faceedit_jax.core.typing import Array, Float, Tokens, typechecked
from faceedit_jax.nn.gru import GRUCell
from faceedit_jax.nn.layers import LayerNorm, dense


class SlotAttention(nn.Module):
  """Iterative attention with a softmax over slots.

  Attributes:
    slot_size: features of one slot.
    mlp_size: hidden features of the residual MLP; None: there is none.
    iterations: number of updates, all with the same parameters.
    heads: number of heads.
    qkv_size: features of queries, keys and values; `slot_size` when None.
    eps: keeps the weighted mean over inputs finite.
    eps_place: "attention" adds it to every weight (SlotDiffusion, LSD), "sum"
      to the sum of the weights (SAVi).
    softmax_over: "slots" or, with several heads, "heads_slots" jointly (LSD).
    scale_by: "head": logits are divided by the root of a head's features;
      "slot": of all heads' features (LSD).
    project_out: whether the heads are mixed by a linear layer, which gives as
      many features as one head has (SAVi).
    norm_eps: of the layer norms.
    dtype: compute dtype of keys and values; slots stay in float32.
  """

  slot_size: int = 192
  mlp_size: int | None = 192
  iterations: int = 3
  heads: int = 1
  qkv_size: int | None = None
  eps: float = 1e-6
  eps_place: Literal["attention", "sum"] = "attention"
  softmax_over: Literal["slots", "heads_slots"] = "slots"
  scale_by: Literal["head", "slot"] = "head"
  project_out: bool = False
  norm_eps: float = 1e-5
  dtype: Any = jnp.float32

  def setup(self):
    size = self.qkv_size or self.slot_size
    self.norm_inputs = LayerNorm(self.norm_eps)
    self.norm_slots = LayerNorm(self.norm_eps)
    self.project_q = dense(size, bias=False)
    self.project_k = dense(size, bias=False, dtype=self.dtype)
    self.project_v = dense(size, bias=False, dtype=self.dtype)
    self.gru = GRUCell()
    if self.mlp_size is not None:
      self.norm_mlp = LayerNorm(self.norm_eps)
      self.mlp_in = dense(self.mlp_size)
      self.mlp_out = dense(self.slot_size)
    if self.project_out:
      self.output = dense(size // self.heads)

  @typechecked
  def __call__(
    self,
    inputs: Tokens,
    slots: Float[Array, "b k e"],
  ) -> tuple[Float[Array, "b k e"], Float[Array, "b heads n k"]]:
    """Updates slots from inputs.

    Args:
      inputs: (b, n, c) features of n pixels.
      slots: (b, k, slot_size) initial slots.

    Returns:
      (b, k, slot_size) float32, and the softmax of the last iteration before
      `eps` is added, (b, heads, n, k) float32.

    Raises:
      ValueError: the slots have another size.
    """
    if slots.shape[-1] != self.slot_size:
      raise ValueError(
        f"SlotAttention: got slots of {slots.shape[-1]} features, wanted "
        f"{self.slot_size}; change `slot_size` or the slots"
      )
    x = self.norm_inputs(inputs)
    keys = self._split(self.project_k(x)).astype(jnp.float32)
    values = self._split(self.project_v(x)).astype(jnp.float32)
    slots = slots.astype(jnp.float32)
    attention = None
    for _ in range(self.iterations):
      slots, attention = self._update(slots, keys, values)
    return slots, attention

  def _split(self, x: Array) -> Array:
    return x.reshape(*x.shape[:2], self.heads, -1)

  def _update(self, slots, keys, values):
    queries = self._split(self.project_q(self.norm_slots(slots)))
    size = queries.shape[-1]
    if self.scale_by == "slot":
      size *= self.heads
    logits = jnp.einsum("bnhd,bkhd->bnhk", keys, queries) * size**-0.5
    if self.softmax_over == "slots":
      attention = jax.nn.softmax(logits, -1)
    else:
      attention = jax.nn.softmax(logits, (-2, -1))
    if self.eps_place == "attention":
      weights = attention + self.eps
      weights = weights / weights.sum(1, keepdims=True)
    else:
      weights = attention / (attention.sum(1, keepdims=True) + self.eps)
    updates = jnp.einsum("bnhk,bnhd->bkhd", weights, values)
    updates = updates.reshape(*updates.shape[:2], -1)
    if self.project_out:
      updates = self.output(updates)
    slots = self.gru(slots, updates)
    if self.mlp_size is not None:
      h = nn.relu(self.mlp_in(self.norm_mlp(slots)))
      slots = slots + self.mlp_out(h)
    return slots, attention.transpose(0, 2, 1, 3)
