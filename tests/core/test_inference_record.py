"""Options that were found after a training, kept beside it."""

import pytest

from faceedit_jax.core import inference_record
from faceedit_jax.core.errors import UserError

NAMES = ["hair", "face"]


def test_what_was_recorded_fills_what_a_config_leaves_empty(tmp_path):
  assert inference_record.read(tmp_path) == {}
  inference_record.write(tmp_path, {"slot_names": NAMES}, "64 pictures")
  kept = inference_record.read(tmp_path)
  assert kept == {"slot_names": {"value": NAMES, "source": "64 pictures"}}

  def fill(options, known=("slot_names",)):
    return inference_record.fill(options, tmp_path, known)

  assert fill({"slot_names": (), "steps": 3}) == {
    "slot_names": NAMES,
    "steps": 3,
  }
  # What somebody says goes before it; what no recipe knows stays out.
  assert fill({"slot_names": ("face",)}) == {"slot_names": ("face",)}
  assert fill({}, known=()) == {}


def test_a_second_record_replaces_its_own_options_alone(tmp_path):
  inference_record.write(tmp_path, {"slot_names": NAMES, "steps": 2}, "a")
  inference_record.write(tmp_path, {"steps": 20}, "b")
  kept = inference_record.read(tmp_path)
  assert kept["slot_names"]["value"] == NAMES
  assert kept["steps"] == {"value": 20, "source": "b"}


@pytest.mark.parametrize("text", ["{", "[]", '{"slot_names": ["hair"]}', "\0"])
def test_a_damaged_record_is_one_line(tmp_path, text):
  (tmp_path / inference_record.NAME).write_text(text)
  with pytest.raises(UserError, match="remove it") as caught:
    inference_record.read(tmp_path)
  assert "\n" not in str(caught.value)
