"""Texts as token ids, so that they can travel in a batch."""

import dataclasses
from typing import Any

import numpy as np

from data_pipelines import tokenize


@dataclasses.dataclass(frozen=True)
class TokenizeText:
  """Replaces texts by their token ids, int32 (length,).

  Attributes:
    field: name of the texts, behind any prefix: "caption" also stands for
      `source_caption`.
    encode: text -> ids.
  """

  field: str
  encode: tokenize.Tokenizer

  def __call__(
    self, example: dict[str, Any], rng: np.random.Generator
  ) -> dict[str, Any]:
    del rng
    out = dict(example)
    for name, value in example.items():
      if isinstance(value, str) and (
        name == self.field or name.endswith(f"_{self.field}")
      ):
        out[name] = np.asarray(self.encode(value), np.int32)
    return out


@dataclasses.dataclass(frozen=True)
class Tokenize:
  """Options of `TokenizeText`.

  Attributes:
    field: see `TokenizeText`.
    tokenizer: one of `tokenize.TOKENIZERS`.
    length: ids of a text; longer ones are cut, shorter ones padded.
  """

  field: str = "caption"
  tokenizer: str = "synthetic_heads"
  length: int = 40

  def __post_init__(self):
    if self.tokenizer not in tokenize.TOKENIZERS:
      raise ValueError(
        f"tokenizer is {self.tokenizer!r}, wanted one of "
        f"{', '.join(tokenize.TOKENIZERS)}"
      )
    if self.length < 1:
      raise ValueError(f"length is {self.length}, wanted 1 or more")

  def transform(self) -> TokenizeText:
    """The transform."""
    make = tokenize.TOKENIZERS[self.tokenizer]
    return TokenizeText(self.field, make(self.length))
