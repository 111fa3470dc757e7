"""CelebA-HQ: its folder, its splits, records and TensorFlow Datasets."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_pipelines import images, prepare, records, samplers, sources
from data_pipelines.celeba import files, splits
from data_pipelines.celeba import prepare as celeba
from data_pipelines.synthetic_heads import labels
from tests.data_pipelines import celeba_folder

COUNT = 10
NAMES = celeba_folder.NAMES


@pytest.fixture
def root(tmp_path):
  path = tmp_path / "CelebAMask-HQ"
  celeba_folder.write(path, COUNT)
  return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  top = tmp_path_factory.mktemp("celeba")
  table, parts = celeba_folder.write(top / "in", COUNT)
  settings = celeba.CelebaSet(str(top / "in"), 16, True, pictures=COUNT)
  celeba.prepare(top / "out", settings, processes=0, progress=False)
  return top, table, parts


def _open(prepared, split, **spec):
  return sources.ArrayRecord("out", **spec).open(prepared[0], split)


def test_records_hold_what_the_folder_says(prepared):
  top, table, parts = prepared
  source = records.RecordSource(top / "out" / "all")
  assert len(source) == COUNT
  assert source.attribute_names == NAMES
  np.testing.assert_array_equal(source.attribute_table(), table)
  assert source.attribute_table().dtype == np.int8
  np.testing.assert_array_equal(source.column("partition"), parts)
  for i in range(COUNT):
    example = source[i]
    assert example["picture"] == i and example["image"].shape == (16, 16, 3)
    np.testing.assert_array_equal(example["attributes"], table[i])
    wanted = (20 * i, 255 - 20 * i, 90)
    assert np.abs(example["image"].astype(int) - wanted).max() < 6
  row = source[0]["labels"][8].tolist()
  assert row == [labels.LABEL["hair"]] * 8 + [labels.LABEL["skin"]] * 8


@pytest.mark.parametrize("split_by", ["Smiling", "Male"])
def test_attributes_split_evenly(prepared, split_by):
  _, table, _ = prepared
  column = NAMES.index(split_by)
  least = np.bincount(table[:, column], minlength=2).min()
  options = {"split_by": split_by, "test_per_class": least - 1}
  test = _open(prepared, "test", **options)
  train = _open(prepared, "train", **options)
  values = test.attribute_table()[:, column]
  assert np.bincount(values).tolist() == [least - 1] * 2
  pictures = [s.column("picture").tolist() for s in (train, test)]
  assert sorted(sum(pictures, [])) == list(range(COUNT))
  assert test[1]["picture"] == pictures[1][1]
  assert test.attribute_names == NAMES
  limited = samplers.TakeSource(train, 2)
  assert limited.attribute_table().shape == (2, 40)
  np.testing.assert_array_equal(
    limited.attribute_table([1]), table[pictures[0][1:2]]
  )


def test_the_parts_of_celeba(prepared):
  _, _, parts = prepared
  for number, split in enumerate(("train", "validation", "test")):
    source = _open(prepared, split, split_by="celeba")
    np.testing.assert_array_equal(
      source.column("picture"), np.flatnonzero(parts == number)
    )


def test_splits_at_their_real_size():
  rng = np.random.default_rng(1)
  table = (rng.random((30_000, 40)) < 0.3).astype(np.int8)
  smiling = NAMES.index("Smiling")

  def positions(split_by, split, **options):
    return splits.positions(split_by, split, NAMES, table, **options)

  assert positions("hisd", "test").tolist() == list(range(3_000))
  assert positions("hisd", "train").tolist() == list(range(3_000, 30_000))
  test, train = (positions("Smiling", s) for s in ("test", "train"))
  assert len(test) == 2_824 and len(train) == 27_176
  assert not set(test) & set(train)
  assert np.bincount(table[test, smiling]).tolist() == [1_412, 1_412]
  assert test.max() > 25_000  # shuffled, not the first ones
  np.testing.assert_array_equal(test, positions("Smiling", "test"))
  for bad, message in (
    (
      ("hisd", "validation"),
      "'hisd' makes no split .*; wanted one of train, t",
    ),
    (("Smile", "test"), "split_by is 'Smile', wanted hisd, celeba or one of"),
    (("celeba", "test"), "list_eval_partition.txt"),
  ):
    with pytest.raises(ValueError, match=message):
      positions(*bad)
  with pytest.raises(ValueError, match="wanted more than the 29,000"):
    positions("Smiling", "test", test_per_class=29_000)
  with pytest.raises(ValueError, match="leaves none to train on"):
    splits.positions("hisd", "test", NAMES, table[:3000])


def test_the_order_of_parts(root):
  index = files.read_index(root, COUNT, masks=True)
  drawn = files.read_labels(index, 3, 16)
  # l_eye (4) < hair (13) in CLASS_NAMES: hair covers eye and skin.
  assert set(drawn[:, :8].ravel()) == {labels.LABEL["hair"]}
  assert set(drawn[:, 8:].ravel()) == {labels.LABEL["skin"]}
  (root / files.MASKS / "0" / "00003_hair.png").unlink()
  drawn = files.read_labels(index, 3, 16)
  assert set(drawn[:, :5].ravel()) == {labels.LABEL["l_eye"]}
  assert set(drawn[:, 6:].ravel()) == {labels.LABEL["skin"]}
  Image.new("L", (20, 20), 255).save(
    root / files.MASKS / "0" / "00003_neck.png"
  )
  with pytest.raises(files.CelebaError, match="neck.png: is .20, 20."):
    files.read_labels(index, 3, 16)


def _without_line(path, number):
  lines = path.read_text().splitlines()
  path.write_text("\n".join(lines[:number] + lines[number + 1 :]))


def test_incomplete_folders(root, tmp_path):
  def refuses(message, pictures=COUNT, **options):
    with pytest.raises(files.CelebaError, match=message) as error:
      files.read_index(root, pictures, **options)
    assert "\n" not in str(error.value)

  refuses("has 10 pictures, wanted 30000; 10.jpg is missing", files.PICTURES)
  (root / files.IMAGES / "4.jpg").rename(tmp_path / "4.jpg")
  refuses("1 of 10 pictures are missing, first 4.jpg")
  (tmp_path / "4.jpg").rename(root / files.IMAGES / "4.jpg")
  for part in celeba_folder.PARTS:
    (root / files.MASKS / "0" / f"00002_{part}.png").unlink()
  assert len(files.read_index(root, COUNT)) == COUNT
  refuses(r"1 of 10 pictures have no mask, first 0/00002_\*.png", masks=True)
  text = (root / files.PARTITION).read_text()
  (root / files.PARTITION).write_text(text.replace(" 2\n", " 7\n"))
  refuses("3 of 10 pictures have no part 0, 1 or 2")
  (root / files.PARTITION).unlink()
  assert files.read_index(root, COUNT).partition is None
  _without_line(root / files.MAPPING, 3)
  refuses("mapping.txt: has 9 pictures, wanted 10; number ")
  (root / files.MAPPING).unlink()
  assert files.read_index(root, COUNT).original is None
  _without_line(root / files.TABLE, 5)
  refuses("anno.txt: has 9 pictures, wanted 10")
  (root / files.TABLE).write_text("10\nBald Smiling\n0.jpg 1 -1\n")
  refuses("names 2 attributes in its second line, wanted 40")
  (root / files.TABLE).unlink()
  refuses("cannot be read .* wanted the folder CelebAMask-HQ")


def _rename(root, name_of):
  """Gives every picture another name, and maybe another format."""
  for number in range(COUNT):
    path = root / files.IMAGES / f"{number}.jpg"
    new = path.with_name(name_of(number))
    if new.suffix != ".jpg":
      images.write_image(new, images.read_image(path))
      path.unlink()
    else:
      path.rename(new)


@pytest.mark.parametrize(
  "name", ["{}.png", "{:05d}.jpg", "{:05d}.png", "{:06d}.webp", "{}.JPG"]
)
def test_pictures_under_other_names(root, name):
  """As re-exports of the set have them."""
  plain = files.read_index(root, COUNT)
  wanted = [files.read_picture(plain, i, 16) for i in range(COUNT)]
  _rename(root, lambda i: name.format(i))
  index = files.read_index(root, COUNT)
  assert index.files == tuple(name.format(i) for i in range(COUNT))
  for number, picture in enumerate(wanted):
    found = files.read_picture(index, number, 16).astype(int)
    assert np.abs(found - picture).max() <= 3
  # Another set than that of the files as unpacked: PNG holds other values.
  assert index.content != plain.content
  # Names in the tables may be padded as well.
  lines = (root / files.TABLE).read_text().splitlines()
  lines[2:] = [f"0000{line}" for line in lines[2:]]
  text = "\ufeff" + "\r\n".join(lines)
  (root / files.TABLE).write_text(text, newline="")
  again = files.read_index(root, COUNT)
  np.testing.assert_array_equal(again.attributes, index.attributes)


def test_pictures_that_are_missing_by_cause(root, tmp_path):
  def refuses(message):
    with pytest.raises(files.CelebaError, match=message) as error:
      files.read_index(root, COUNT)
    assert "\n" not in str(error.value)

  folder = root / files.IMAGES
  (folder / "0.png").write_bytes((folder / "0.jpg").read_bytes())
  assert files.read_index(root, COUNT).files[0] == "0.jpg"  # the official one
  (folder / "0.png").unlink()
  _rename(root, lambda i: f"{i + 1:06d}.png")
  refuses("counts its pictures from 1 to 10; .* rename each to the number")
  (folder / "000000.png").write_bytes((folder / "000001.png").read_bytes())
  (folder / "000003.png").unlink()
  refuses("1 of 10 pictures are missing, first 3.jpg, while 1 have numbers")
  (folder / "000010.png").unlink()
  refuses("1 of 10 pictures are missing, first 3.jpg; unpack .* again")
  (folder / "3.webp").write_bytes((folder / "000000.png").read_bytes())
  (folder / "03.jpeg").write_bytes((folder / "000000.png").read_bytes())
  refuses("03.jpeg and 3.webp are pictures of one number")
  for path in list(folder.iterdir()):
    path.rename(path.with_name(f"img{path.name}"))
  refuses("holds 11 files, none named by its number; wanted 0.jpg to 9.jpg")
  folder.rename(tmp_path / "elsewhere")
  refuses("CelebA-HQ-img: no such folder; unpack")


def test_the_command(root, tmp_path, monkeypatch, capsys):
  command = ["celeba_hq", f"--input={root}", f"--output={tmp_path / 'out'}"]
  command += ["--size=16", "--processes=0"]
  assert prepare.main(command) == 1
  assert "wanted 30000; 10.jpg is missing" in capsys.readouterr().err
  monkeypatch.setattr(
    celeba.CelebaSet, "__init__", _with_pictures(celeba.CelebaSet.__init__)
  )
  assert prepare.main(command) == 0
  assert "out/all: 10 examples" in capsys.readouterr().out
  source = records.RecordSource(tmp_path / "out" / "all")
  assert "labels" not in source[0] and "partition" in source[0]
  assert prepare.main([*command, "--labels"]) == 1
  assert "labels: False there, True wanted" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["{}.jpg", "{}.png", "{:05d}.JPG"])
def test_the_command_counts_what_it_took(
  root, tmp_path, monkeypatch, capsys, name
):
  _rename(root, lambda i: name.format(i))
  (root / files.IMAGES / "cover.png").write_bytes(b"")
  (root / files.IMAGES / "notes.txt").write_text("mine")
  monkeypatch.setattr(
    celeba.CelebaSet, "__init__", _with_pictures(celeba.CelebaSet.__init__)
  )
  command = ["celeba_hq", f"--input={root}", f"--output={tmp_path / 'out'}"]
  assert prepare.main([*command, "--size=16", "--processes=0"]) == 0
  out = capsys.readouterr().out
  assert "found 11 pictures, took 10; left out" in out
  assert "1 in no list of the set (cover.png)" in out
  assert "1 of another kind (.txt) (notes.txt)" in out


def _with_pictures(init):
  return lambda self, *args: init(self, *args, pictures=COUNT)


_READ = """
import sys
from data_pipelines import sources
source = sources.Tfds("celeba_hq/tiny").open(sys.argv[1], "test")
print(len(source), source.attribute_names[31], source[0]["labels"].shape)
print(*sorted(source.attribute_table()[:, 31]), "tensorflow" in sys.modules)
"""


@pytest.mark.slow
def test_the_builder_writes_what_is_read_without_tensorflow(tmp_path):
  pytest.importorskip("tensorflow")
  import tensorflow_datasets as tfds

  from data_pipelines.celeba import builder

  table, _ = celeba_folder.write(tmp_path / "CelebAMask-HQ", COUNT)
  names = set(builder.CelebaHq.builder_configs)
  assert {"256_hisd", "256_celeba", "128_Smiling_labels"} <= names
  config = builder.CelebaHqConfig(
    name="tiny",
    size=16,
    split_by="Smiling",
    labels=True,
    test_per_class=2,
    pictures=COUNT,
  )
  made = builder.CelebaHq(data_dir=str(tmp_path / "out"), config=config)
  manual = tfds.download.DownloadConfig(manual_dir=str(tmp_path))
  made.download_and_prepare(download_config=manual)
  done = subprocess.run(
    [sys.executable, "-c", _READ, str(tmp_path / "out")],
    capture_output=True,
    text=True,
    check=True,
  )
  first, second = done.stdout.strip().splitlines()[-2:]
  assert first == "4 Smiling (16, 16)"
  assert second == "0 0 1 1 False"
  train = sources.Tfds("celeba_hq/tiny").open(tmp_path / "out", "train")
  assert len(train) == COUNT - 4
  for i in range(len(train)):
    example = train[i]
    np.testing.assert_array_equal(
      example["attributes"], table[example["picture"]]
    )
