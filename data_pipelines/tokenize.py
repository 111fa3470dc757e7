"""Words of captions as numbers.

A tokenizer is a function from a text to a fixed number of ids. The one here
knows the words of the synthetic heads' captions; one of the transformers
library fits after

    lambda text: tokenizer(
      text, padding="max_length", truncation=True, max_length=length
    )["input_ids"]
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from data_pipelines.synthetic_heads import caption_words

PAD, UNKNOWN = 0, 1
_FIRST_WORD = 2
_WORD = re.compile(r"[\w-]+|[^\w\s]")


class Tokenizer(Protocol):
  """A text as a fixed number of token ids."""

  def __call__(self, text: str) -> Sequence[int] | np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class WordTokenizer:
  """One id for each word and punctuation mark, in lower case.

  Attributes:
    vocabulary: words; the first has id 2, for 0 pads and 1 is any other word.
    length: ids of a text; longer ones are cut, shorter ones padded.
  """

  vocabulary: tuple[str, ...]
  length: int

  @functools.cached_property
  def _ids(self) -> dict[str, int]:
    return {word: i for i, word in enumerate(self.vocabulary, _FIRST_WORD)}

  @property
  def size(self) -> int:
    """Number of ids, padding and unknown words included."""
    return len(self.vocabulary) + _FIRST_WORD

  def __call__(self, text: str) -> np.ndarray:
    """Returns int32 (length,)."""
    words = _WORD.findall(text.lower())[: self.length]
    out = np.full(self.length, PAD, np.int32)
    out[: len(words)] = [self._ids.get(word, UNKNOWN) for word in words]
    return out


# By the option `tokenizer` of the transform: length -> tokenizer.
TOKENIZERS: dict[str, Callable[[int], Tokenizer]] = {
  "synthetic_heads": functools.partial(WordTokenizer, caption_words.VOCABULARY),
}
