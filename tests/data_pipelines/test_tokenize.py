"""Captions as token ids, and on their way into a batch."""

import numpy as np
import pytest

from data_pipelines import loader, tokenize, transforms
from data_pipelines.synthetic_heads import caption_words, labels
from data_pipelines.synthetic_heads.frames import sample_frame
from data_pipelines.synthetic_heads.identity import sample_identity
from faceedit_jax.core import options as options_lib
from faceedit_jax.core.errors import UserError

LENGTH = transforms.Tokenize().length


def caption(person):
  return labels.caption(sample_identity(0, person), sample_frame(0, person, 0))


def test_all_captions_have_known_words_and_room():
  encode = tokenize.TOKENIZERS["synthetic_heads"](LENGTH)
  words = set()
  for person in range(1500):
    text = caption(person)
    ids = encode(text)
    assert ids.shape == (LENGTH,) and ids.dtype == np.int32
    assert tokenize.UNKNOWN not in ids, text
    assert ids[-1] == tokenize.PAD  # nothing was cut
    used = ids[ids != tokenize.PAD]
    words |= set(used.tolist())
    # Back again: nothing is lost but capitals.
    back = " ".join(caption_words.VOCABULARY[i - 2] for i in used)
    assert back.replace(" ,", ",") == text.lower()
  assert encode.size == len(caption_words.VOCABULARY) + 2
  # So many people use nearly all of them.
  assert len(words) >= len(caption_words.VOCABULARY) - 3


def test_ids_are_fixed():
  """Trained nets depend on them."""
  encode = tokenize.TOKENIZERS["synthetic_heads"](12)
  text = "a young woman with a beret, smiling"
  assert encode(text).tolist() == [3, 10, 13, 6, 3, 1, 2, 50, 0, 0, 0, 0]
  assert len(set(caption_words.VOCABULARY)) == len(caption_words.VOCABULARY)
  assert encode("a " * 40).tolist() == [3] * 12


class Heads:
  """Captions of drawn people, without their pictures."""

  def __len__(self):
    return 6

  def __getitem__(self, index):
    return {
      "image": np.full((4, 4, 3), index, np.uint8),
      "caption": caption(index),
    }


def test_captions_travel_to_the_batch():
  section = {"tokenize": {"length": 30}, "fields": ["image", "caption"]}
  options = options_lib.build(transforms.Options, section, "transforms")
  batches = loader.make_loader(
    Heads(), transforms.make(options, 4), 3, seed=0, shuffle=False
  )
  encode = tokenize.TOKENIZERS["synthetic_heads"](30)
  for first in (0, 3):
    batch = next(batches)
    assert batch["caption"].shape == (3, 30)
    assert batch["caption"].dtype == np.int32
    for i, ids in enumerate(batch["caption"]):
      np.testing.assert_array_equal(ids, encode(caption(first + i)))
  batches.close()
  on_device = next(loader.prefetch_to_device(iter([batch])))
  np.testing.assert_array_equal(on_device["caption"], batch["caption"])


def test_any_function_is_a_tokenizer():
  turn = transforms.TokenizeText("caption", lambda text: [len(text)] * 3)
  example = {"caption": "ab", "source_caption": "abc", "file": "x.png"}
  out = turn(example, np.random.default_rng(0))
  assert out["caption"].tolist() == [2, 2, 2]
  assert out["source_caption"].tolist() == [3, 3, 3]
  assert out["caption"].dtype == np.int32 and out["file"] == "x.png"


@pytest.mark.parametrize(
  "section, message",
  [
    ({"tokenizer": "clipp"}, "'clipp', wanted one of synthetic_heads"),
    ({"length": 0}, "length is 0, wanted 1 or more"),
    ({"lenght": 8}, r"no key 'lenght'; did you mean 'length'\?"),
  ],
)
def test_wrong_settings_are_one_line(section, message):
  with pytest.raises(UserError, match=message):
    options_lib.build(
      transforms.Options, {"tokenize": section}, "data.transforms"
    )
