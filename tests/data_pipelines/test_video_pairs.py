"""Pairs of frames from videos: who, which clips, how often, how much memory."""

import collections
import pickle
import tracemalloc

import numpy as np
import pytest

from data_pipelines import loader, records, samplers, sources
from faceedit_jax import input_pipeline

# Person 7: videos 0 (5 frames) and 1 (1); person 3: video 4 (2); person 9:
# videos 2 (3) and 3 (40). In a mixed order.
VIDEOS = {0: (7, 5), 1: (7, 1), 4: (3, 2), 2: (9, 3), 3: (9, 40)}
FRAMES = [(p, v, f) for v, (p, n) in VIDEOS.items() for f in range(n)]
MIXED = [FRAMES[i] for i in np.random.default_rng(0).permutation(len(FRAMES))]
PEOPLE, CLIPS, NUMBERS = np.asarray(MIXED).T


def _drawn(count=3000, **options):
  pairs = samplers.VideoPairs(PEOPLE, CLIPS, **options)
  return [tuple(MIXED[i] for i in pairs(index)) for index in range(count)]


def test_pairs_are_of_one_video():
  drawn = _drawn()
  assert all(first[:2] == second[:2] for first, second in drawn)
  # Every frame comes, and a frame with itself.
  assert {frame for pair in drawn for frame in pair} == set(FRAMES)
  assert any(first == second for first, second in drawn)
  assert any(first[2] > second[2] for first, second in drawn)
  videos = collections.Counter(first[1] for first, _ in drawn)
  # A third to each person, shared evenly by a person's videos.
  for video, share in {
    0: 1 / 6,
    1: 1 / 6,
    4: 1 / 3,
    2: 1 / 6,
    3: 1 / 6,
  }.items():
    assert abs(videos[video] / 3000 - share) < 0.03
  assert _drawn() == drawn and _drawn(seed=1) != drawn


def test_every_person_comes_equally_often():
  pairs = samplers.VideoPairs(PEOPLE, CLIPS, per_identity=7)
  assert len(pairs) == 21
  for start in range(0, 63, 3):
    people = {PEOPLE[pairs(i)[0]] for i in range(start, start + 3)}
    assert people == {3, 7, 9}
  assert len(samplers.VideoPairs(PEOPLE, CLIPS)) == 300
  orders = {
    tuple(PEOPLE[pairs(3 * r + i)[0]] for i in range(3)) for r in range(40)
  }
  assert len(orders) == 6


def test_pairs_of_any_two_videos():
  drawn = _drawn(within="identity")
  assert all(first[0] == second[0] for first, second in drawn)
  kinds = collections.Counter((a[1], b[1]) for a, b in drawn if a[0] == 9)
  assert set(kinds) == {(2, 2), (2, 3), (3, 2), (3, 3)}
  assert min(kinds.values()) > 0.2 * sum(kinds.values())


def test_pairs_of_two_people():
  drawn = _drawn(across=True)
  assert all(first[0] != second[0] for first, second in drawn)
  kinds = collections.Counter((a[0], b[0]) for a, b in drawn)
  assert len(kinds) == 6 and min(kinds.values()) > 400
  with pytest.raises(ValueError, match="has 1 people, wanted 2"):
    samplers.VideoPairs([1, 1], [0, 0], across=True)


def test_order_of_examples_does_not_matter_in_kind():
  """Sorted sets keep no list of frames, and draw the same persons."""
  order = np.lexsort((NUMBERS, CLIPS, PEOPLE))
  pairs = samplers.VideoPairs(PEOPLE[order], CLIPS[order])
  mixed = samplers.VideoPairs(PEOPLE, CLIPS)
  assert pairs._order is None and mixed._order is not None
  for i in range(300):
    first, second = (order[j] for j in pairs(i))
    assert CLIPS[first] == CLIPS[second] == CLIPS[mixed(i)[0]]
  copy = pickle.loads(pickle.dumps(mixed))
  assert [copy(i) for i in range(20)] == [mixed(i) for i in range(20)]


def test_memory_of_many_frames():
  """8 bytes for each frame while it is made, in steps; 4 are kept."""
  count = 400_000
  rng = np.random.default_rng(0)
  videos = np.repeat(np.arange(count // 160), 160)
  people = (videos // 36).astype(np.int32)
  mixed = rng.permutation(count)
  for order, kept_bytes in ((slice(None), 0), (mixed, 4)):
    identities, clips = people[order], videos[order]
    tracemalloc.start()
    pairs = samplers.VideoPairs(identities, clips)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < kept_bytes * count + 200_000
    assert peak < 60 * count
    i, j = pairs(5)
    assert clips[i] == clips[j]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """A set as videos give it, and one without videos."""
  path = tmp_path_factory.mktemp("sets")
  examples = [
    {
      "image": np.full((8, 8, 3), i, np.uint8),
      "identity": np.int32(p),
      "video": np.int32(v),
      "frame": np.int32(f),
    }
    for i, (p, v, f) in enumerate(FRAMES)
  ]
  records.write_records(path / "videos" / "train", examples, 3)
  for example in examples:
    del example["video"]
  records.write_records(path / "pictures" / "train", examples, 2)
  return path


def _open(data_dir, folder="videos", **options):
  source = sources.ArrayRecord(folder).open(data_dir)
  return samplers.PairSource(source, **options)


def test_sources_pair_by_video(data_dir, monkeypatch):
  read = []
  get = records.RecordSource.__getitem__
  monkeypatch.setattr(
    records.RecordSource,
    "__getitem__",
    lambda self, i: read.append(i) or get(self, i),
  )
  source = _open(data_dir)
  assert not read and source.endless and len(source) == 300
  for i in range(50):
    example = source[i]
    assert example["video"] == example["pair_video"]
    place = FRAMES.index(
      tuple(int(example[n]) for n in ("identity", "video", "frame"))
    )
    assert (example["image"] == place).all()
  across = _open(data_dir, across=True, seed=4, per_identity=5)
  assert len(across) == 15
  assert all(
    across[i]["identity"] != across[i]["pair_identity"] for i in range(15)
  )
  both = _open(data_dir, within="identity")
  assert any(both[i]["video"] != both[i]["pair_video"] for i in range(50))
  frames = [int(_open(data_dir, seed=4)[i]["frame"]) for i in range(30)]
  assert frames == [int(_open(data_dir, seed=4)[i]["frame"]) for i in range(30)]
  assert frames != [int(source[i]["frame"]) for i in range(30)]


def test_sets_without_videos_pair_as_before(data_dir):
  source = _open(data_dir, "pictures", seed=2)
  before = samplers.IdentityPairs([p for p, _, _ in FRAMES], 2)
  assert not source.endless and len(source) == len(before)
  for i in range(40):
    first, second = before(i)
    example = source[i]
    assert (example["image"] == first).all()
    assert (example["pair_image"] == second).all()
  same = _open(data_dir, "pictures", seed=2, within="identity")
  assert all((same[i]["image"] == source[i]["image"]).all() for i in range(40))
  across = _open(data_dir, "pictures", across=True)
  assert all(
    across[i]["identity"] != across[i]["pair_identity"] for i in range(9)
  )


def _stage_data(data_dir, folder="videos", **options):
  section = dict(
    source=dict(kind="array_record", folder=folder),
    sampler=dict(kind="pairs", **options),
    loader=dict(batch_size=6),
  )
  data = input_pipeline.build_data(section, "config.stage.x.data")
  return input_pipeline.open_data(data, data_dir, 3)


def test_wrong_settings_are_one_line(data_dir):
  for folder, options, message in (
    ("pictures", {"within": "video"}, "no column `video`; wanted a set"),
    ("pictures", {"within": "clip"}, "'clip', wanted 'video' or 'identity'"),
    ("videos", {"within": "clip"}, "'clip', wanted 'video' or 'identity'"),
    ("videos", {"per_identity": 0}, "per_identity is 0, wanted 1"),
  ):
    with pytest.raises(ValueError, match=message):
      _stage_data(data_dir, folder, **options)


def test_stages_read_the_same_settings(data_dir):
  source = _stage_data(data_dir)
  wanted = _open(data_dir, seed=3)
  for i in (0, 299, 300, 1000):
    example, other = source[i], wanted[i]
    assert example["source_frame"] == other["frame"]
    assert example["query_frame"] == other["pair_frame"]
  source = _stage_data(data_dir, across=True, seed=9, per_identity=2)
  wanted = _open(data_dir, across=True, seed=9)
  assert len(source) == 6 and source.endless
  assert source[4]["query_frame"] == wanted[4]["pair_frame"]
  assert source[4]["source_identity"] != source[4]["query_identity"]


def _numbers(source, steps, start=0, hosts=1, shuffle=True):
  """(person, frame, other frame) of each example, in global order."""
  loaders = [
    loader.make_loader(source, None, 6, 5, start, host, hosts, 2, shuffle)
    for host in range(hosts)
  ]
  out = []
  for _ in range(steps):
    for one in loaders:
      batch = next(one)
      names = ("identity", "frame", "pair_frame")
      out += zip(*(batch[name].tolist() for name in names), strict=True)
  for one in loaders:
    one.close()
  return out


def test_every_epoch_has_new_pairs(data_dir):
  source = _open(data_dir, per_identity=20)  # ten batches
  drawn = _numbers(source, 30)
  wanted = samplers.PairSource(sources.ArrayRecord("videos").open(data_dir))
  for epoch in range(3):
    part = drawn[60 * epoch : 60 * (epoch + 1)]
    examples = [wanted[60 * epoch + i] for i in range(60)]
    names = ("identity", "frame", "pair_frame")
    expected = [tuple(int(e[n]) for n in names) for e in examples]
    assert sorted(part) == sorted(expected) and part != expected
  assert sorted(drawn[:60]) != sorted(drawn[60:120])
  assert _numbers(source, 5, start=13) == drawn[78:108]
  assert _numbers(source, 30, hosts=2) == drawn
  straight = _numbers(source, 11, shuffle=False)
  assert straight[60:] == [
    tuple(int(wanted[i][n]) for n in names) for i in range(60, 66)
  ]
