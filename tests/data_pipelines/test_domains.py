"""Domain folders, and what every source says of its attributes."""

import numpy as np
import pytest

from data_pipelines import images, records, samplers, sources
from data_pipelines.synthetic_heads import generate, labels
from tests.data_pipelines import fake_world

WORLD = "tests.data_pipelines.fake_world"


@pytest.fixture
def folders(tmp_path):
  """Three sad and two smiling pictures to train on, one of each to test."""
  for split, domain, suffixes in (
    ("train", "smile", (".png", ".JPG")),
    ("train", "sad", (".png", ".jpeg", ".jpg")),
    ("val", "smile", (".png",)),
    ("val", "sad", (".png",)),
  ):
    for i, suffix in enumerate(suffixes):
      image = np.full((20, 30, 3), 200 if domain == "smile" else 40, np.uint8)
      path = tmp_path / "faces" / split / domain / f"{i}{suffix}"
      images.write_image(path, image)
    (tmp_path / "faces" / split / domain / "notes.txt").write_text("no picture")
  return tmp_path


FACES = sources.DomainFolder(size=16, folder="faces")


def test_the_second_folder_has_the_attribute(folders):
  source = FACES.open(folders, "train")
  assert len(source) == 5 and source.attribute_names == ("smile",)
  assert source.attribute_table().tolist() == [[0], [0], [0], [1], [1]]
  assert source.attribute_table([3, 0]).tolist() == [[1], [0]]
  for i in range(5):
    example = source[i]
    assert example["image"].shape == (16, 16, 3)
    has = int(example["attributes"][0])
    assert example["attributes"].dtype == np.int8
    assert abs(int(example["image"].mean()) - (40, 200)[has]) < 3
    assert example["file"].startswith(("sad/", "smile/")[has])
  limited = samplers.TakeSource(source, 4)
  assert limited.attribute_names == ("smile",)
  assert limited.attribute_table().tolist() == [[0], [0], [0], [1]]


def test_splits_without_a_folder_of_their_own(folders):
  for split in ("validation", "test"):
    assert len(FACES.open(folders, split)) == 2
  (folders / "faces" / "test" / "a").mkdir(parents=True)
  (folders / "faces" / "test" / "b").mkdir()
  with pytest.raises(ValueError, match="test/a: no pictures"):
    FACES.open(folders, "test")
  assert len(FACES.open(folders, "validation")) == 2


def test_folders_that_are_no_two_domains(folders):
  (folders / "faces" / "train" / "glum").mkdir()
  with pytest.raises(ValueError, match=r"3 domains \(glum, sad, smile\), want"):
    FACES.open(folders, "train")
  with pytest.raises(ValueError, match="no folder for the split 'pairs'"):
    FACES.open(folders, "pairs")


def test_drawn_and_stored_heads_agree_on_attributes(tmp_path):
  generate.generate(
    tmp_path, "train", 9, 2, 16, processes=0, progress=False, world=WORLD
  )
  stored = records.RecordSource(tmp_path / "train", ("image",))
  online = sources.OnlineSource(16, 9, 2, world=WORLD)
  assert stored.attribute_names == fake_world.ATTRIBUTE_NAMES
  assert online.attribute_names == fake_world.ATTRIBUTE_NAMES
  whole = records.RecordSource(tmp_path / "train")
  wanted = np.stack([whole[i]["attributes"] for i in range(18)])
  assert 0 < wanted.mean() < 1
  for source in (stored, online):
    np.testing.assert_array_equal(source.attribute_table(), wanted)
    part = samplers.SubsetSource(source, [4, 2, 17])
    np.testing.assert_array_equal(part.attribute_table(), wanted[[4, 2, 17]])
    np.testing.assert_array_equal(part.attribute_table([2]), wanted[[17]])
    assert part.attribute_names == fake_world.ATTRIBUTE_NAMES
  assert part[1]["frame"] == 0 and part.column("identity").tolist() == [2, 1, 8]
  with pytest.raises(IndexError):
    part[3]
  # The real world's names; sets drawn before `world` was noted have them too.
  del stored.metadata["settings"]["world"]
  assert stored.attribute_names == labels.ATTRIBUTE_NAMES


def test_sets_that_do_not_index_their_attributes_are_read_through(tmp_path):
  rows = [np.array([i % 2, 1], np.int8) for i in range(5)]
  records.write_records(
    tmp_path / "new",
    [{"attributes": row} for row in rows],
    shards=2,
    settings={"attribute_names": ["Smiling", "Male"]},
  )
  # A wider type is not indexed, as in sets from before there was an index.
  records.write_records(
    tmp_path / "old", [{"attributes": row.astype(np.int16)} for row in rows]
  )
  new, old = (records.RecordSource(tmp_path / n) for n in ("new", "old"))
  assert new.attribute_names == ("Smiling", "Male")
  np.testing.assert_array_equal(new.column("attributes"), np.stack(rows))
  for source in (new, old):
    np.testing.assert_array_equal(source.attribute_table(), np.stack(rows))
    assert source.attribute_table([3, 1]).tolist() == [[1, 1], [1, 1]]
  with pytest.raises(records.RecordError, match="no column 'attributes'"):
    old.column("attributes")
  with pytest.raises(records.RecordError, match="the set names no attributes"):
    _ = old.attribute_names
  records.write_records(tmp_path / "none", [{"a": np.int32(3)}])
  with pytest.raises(records.RecordError, match="no field"):
    records.RecordSource(tmp_path / "none").attribute_table()
