"""Domains are drawn alike often, and each draw depends on its number alone."""

import numpy as np
import pytest

from data_pipelines import attributes, records, samplers

NAMES = ("Bald", "Smiling", "Young")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """Thirty pictures; three smile, and every picture's colour is its number."""
  path = tmp_path_factory.mktemp("set")
  records.write_records(
    path,
    (
      {
        "image": np.full((4, 4, 3), i, np.uint8),
        "attributes": np.array([0, i < 3, i % 2], np.int8),
      }
      for i in range(30)
    ),
    settings={"attribute_names": list(NAMES)},
  )
  return records.RecordSource(path)


def values(example, name="image"):
  i = int(example[name][0, 0, 0])
  return {"Smiling": int(i < 3), "Young": i % 2}


def test_both_sides_of_every_attribute_come_alike_often(source):
  drawn = samplers.DomainSource(source, ("Smiling", "Young"), seed=1)
  examples = [drawn[i] for i in range(400)]
  domains = np.array([int(e["domain"]) for e in examples])
  targets = np.array([int(e["target"]) for e in examples])
  assert (domains // 2 == targets // 2).all()
  assert (domains // 2 == np.arange(400) % 2).all()
  for found in (domains, targets):
    assert (np.abs(np.bincount(found, minlength=4) / 400 - 0.25) < 0.05).all()
  # Half of the targets are the picture's own domain.
  assert abs((domains == targets).mean() - 0.5) < 0.08
  for example in examples[:60]:
    name = ("Smiling", "Young")[int(example["domain"]) // 2]
    assert values(example)[name] == int(example["domain"]) % 2


def test_references_show_the_target_domain(source):
  drawn = samplers.DomainSource(source, ("Young",), seed=1, references=2)
  for i in range(30):
    example = drawn[i]
    for name in ("reference_image", "second_reference_image"):
      assert values(example, name)["Young"] == int(example["target"])


def test_a_draw_depends_on_seed_and_number_alone(source):
  a, b, c = (
    samplers.DomainSource(source, ("Young",), seed=s) for s in (1, 1, 2)
  )
  orders = [[int(s[i]["image"][0, 0, 0]) for i in range(20)] for s in (a, c)]
  assert (
    orders[0]
    == [int(b[i]["image"][0, 0, 0]) for i in reversed(range(20))][::-1]
  )
  assert orders[0] != orders[1]


def test_what_is_missing_is_named(source):
  with pytest.raises(ValueError, match="did you mean 'Smiling'"):
    samplers.DomainSource(source, ("Smilling",))
  with pytest.raises(ValueError, match="none of 30 pictures is with 'Bald'"):
    samplers.DomainSource(source, ("Bald",))
  with pytest.raises(ValueError, match="is empty"):
    samplers.DomainSource(source, ())
  with pytest.raises(ValueError, match="has no attributes"):
    attributes.names_of([])


def test_columns_are_narrowed_in_the_order_asked_for(source):
  narrow = samplers.AttributeColumns(source, ("Young", "Smiling"))
  assert narrow[1]["attributes"].tolist() == [1, 1]
  assert narrow[4]["attributes"].tolist() == [0, 0]
