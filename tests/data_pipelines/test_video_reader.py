"""Reading clips: order, colours, damage; persons by names of files."""

import pathlib

import numpy as np
import pytest

from data_pipelines import align, images
from data_pipelines.videos import index, reader, settings
from tests import video_set

av = pytest.importorskip("av")


def _counting(count=50, size=(32, 48)):
  """Pictures whose gray says their number, the left half red."""
  pictures = []
  for number in range(count):
    picture = np.full((*size, 3), 5 * number, np.uint8)
    picture[:, : size[1] // 2] = (200, 40, 60)
    pictures.append(picture)
  return pictures


@pytest.fixture(scope="module")
def video(tmp_path_factory):
  path = tmp_path_factory.mktemp("video") / "a.mp4"
  video_set.write_video(path, _counting())
  return path


def test_frames_come_in_order_and_colour(video):
  found = list(reader.frames(video))
  assert [number for number, _ in found] == list(range(50))
  for number, frame in found:
    assert frame.shape == (32, 48, 3) and frame.dtype == np.uint8
    assert np.abs(frame[4:-4, 28:-4].mean() - 5 * number) < 3
    assert np.abs(frame[4:-4, 4:20].mean((0, 1)) - (200, 40, 60)).max() < 4
  numbers = [number for number, _ in reader.frames(video, step=7, limit=3)]
  assert numbers == [0, 7, 14]


def test_the_colour_matrix_of_a_file_is_used(tmp_path):
  """BT.709, as larger videos have it, differs by 20 of 255 in reds."""
  colour = np.full((32, 32, 3), (200, 40, 60), np.uint8)
  path = tmp_path / "hd.mp4"
  with av.open(str(path), "w") as file:
    stream = file.add_stream("libx264", rate=25)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    stream.codec_context.colorspace = av.video.reformatter.Colorspace.ITU709
    frame = av.VideoFrame.from_ndarray(colour, format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
    file.mux(stream.encode(frame))
    file.mux(stream.encode())
  ((_, found),) = reader.frames(path)
  assert np.abs(found.astype(int) - colour).max() < 5


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_videos_are_turned_upright(tmp_path, degrees):
  picture = np.zeros((32, 48, 3), np.uint8)
  picture[:, :12] = 255
  path = tmp_path / "turned.mp4"
  video_set.write_video(path, [picture] * 2, rotation=degrees)
  wanted = np.rot90(picture, degrees // 90)  # counterclockwise
  for _, frame in reader.frames(path):
    assert frame.shape == wanted.shape
    assert np.abs(frame.astype(int) - wanted).mean() < 5


TURNS = {
  "as stored": ((1, 0, 0, 1), lambda a: a),
  "mirrored": ((-1, 0, 0, 1), lambda a: a[:, ::-1]),
  "upside down": ((-1, 0, 0, -1), lambda a: a[::-1, ::-1]),
  "flipped": ((1, 0, 0, -1), lambda a: a[::-1]),
  "to the right": ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
  "to the left": ((0, -1, 1, 0), np.rot90),
  "transposed": ((0, 1, 1, 0), lambda a: a.swapaxes(0, 1)),
  "transverse": ((0, -1, -1, 0), lambda a: np.rot90(a[:, ::-1], -1)),
}


@pytest.mark.parametrize("name", TURNS)
def test_the_whole_display_matrix(tmp_path, name):
  """x' = a x + c y and y' = b x + d y, as ISO 14496-12 counts them."""
  (a, b, c, d), shown = TURNS[name]
  picture = np.zeros((32, 48, 3), np.uint8)
  picture[:8] = 90
  picture[:, :12] = 255
  path = tmp_path / "a.mp4"
  one = 1 << 16
  matrix = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
  video_set.write_video(path, [picture] * 2, matrix=matrix)
  wanted = shown(picture)
  for _, frame in reader.frames(path):
    assert frame.shape == wanted.shape
    assert np.abs(frame.astype(int) - wanted).mean() < 5


@pytest.mark.parametrize(
  "ratio, size",
  [
    ("4/3", (32, 64)),
    ("16/11", (32, 70)),
    ("3/4", (43, 48)),
    ("1/1", (32, 48)),
  ],
)
@pytest.mark.parametrize("rotation", [0, 90])
def test_pixels_become_square(tmp_path, ratio, size, rotation):
  disc = np.hypot(*(np.mgrid[:32, :48] + 0.5 - [[[16]], [[24]]])) < 12
  picture = np.repeat(disc[..., None] * np.uint8(255), 3, 2)
  path = tmp_path / "a.mp4"
  video_set.write_video(path, [picture], rotation=rotation, pixels=ratio)
  ((_, frame),) = reader.frames(path)
  stored = np.rot90(frame, -1) if rotation else frame
  assert stored.shape == (*size, 3)
  rows = (stored[..., 0] > 127).sum(0).max()
  columns = (stored[..., 0] > 127).sum(1).max()
  assert abs(rows - 24 * size[0] / 32) <= 2
  assert abs(columns - 24 * size[1] / 48) <= 2


@pytest.mark.shared
def test_the_videos_of_the_report(shared):
  top = shared / "field_cases" / "D3-mirror-sar"
  with av.open(str(top / "hflip.mp4")) as file:
    stored = next(file.decode(video=0)).to_ndarray(format="rgb24")
  _, first = next(reader.frames(top / "hflip.mp4"))
  np.testing.assert_array_equal(first, stored[:, ::-1])
  with av.open(str(top / "sar.mp4")) as file:
    height, width = file.streams.video[0].height, file.streams.video[0].width
  _, first = next(reader.frames(top / "sar.mp4"))
  assert first.shape == (height, round(width * 4 / 3), 3)


def test_folders_of_frames(tmp_path):
  for number, picture in enumerate(_counting(12)):
    images.write_image(tmp_path / "clip.mp4" / f"{number:07d}.png", picture)
  (tmp_path / "clip.mp4" / "notes.txt").write_text("no frame")
  found = list(reader.frames(tmp_path / "clip.mp4", 5))
  assert [number for number, _ in found] == [0, 5, 10]
  assert [frame[0, -1, 0] for _, frame in found] == [0, 25, 50]
  file = tmp_path / "clip.mp4" / "0000007.png"
  file.write_bytes(file.read_bytes()[:60])
  with pytest.raises(reader.ClipError, match="frame 7: .*damaged or cut short"):
    list(reader.frames(tmp_path / "clip.mp4"))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_what_is_cut_short_is_no_clip(tmp_path, suffix, share):
  path = tmp_path / f"a{suffix}"
  noise = np.random.default_rng(0).integers(0, 255, (100, 32, 32, 3), np.uint8)
  video_set.write_video(path, list(noise))
  assert len(list(reader.frames(path))) == 100
  whole = path.read_bytes()
  path.write_bytes(whole[: int(share * len(whole))])
  if suffix == ".mkv" and share == 0.97:
    # Within what headers may be wrong by.
    assert len(list(reader.frames(path))) > 90
    return
  with pytest.raises(reader.ClipError):
    list(reader.frames(path))


def test_what_is_no_clip(video, tmp_path):
  def reason(path, **options):
    with pytest.raises(reader.ClipError) as error:
      list(reader.frames(path, **options))
    assert "\n" not in str(error.value)
    return str(error.value)

  damaged = bytearray(video.read_bytes())
  middle = 2 * len(damaged) // 3
  damaged[middle : middle + 200] = b"\x55" * 200
  (tmp_path / "damaged.mp4").write_bytes(damaged)
  assert "damaged after" in reason(tmp_path / "damaged.mp4")
  with av.open(str(tmp_path / "sound.mp4"), "w") as file:
    stream = file.add_stream("aac", rate=8000, layout="mono")
    silence = np.zeros((1, 1024), np.float32)
    frame = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
    frame.sample_rate = 8000
    file.mux(stream.encode(frame))
    file.mux(stream.encode())
  assert "no pictures" in reason(tmp_path / "sound.mp4")
  (tmp_path / "text.mp4").write_text("no video" * 99)
  assert "cannot be read (Invalid data" in reason(tmp_path / "text.mp4")
  (tmp_path / "page.mp4").write_text("<!doctype html><html></html>")
  assert "it is a web page (HTML)" in reason(tmp_path / "page.mp4")
  (tmp_path / "empty").mkdir()
  assert reason(tmp_path / "empty") == "holds no frame"
  with pytest.raises(index.VideoError, match="is gone since"):
    list(reader.frames(tmp_path / "gone.mp4"))


@pytest.mark.parametrize("shape", [(90, 90), (64, 100), (97, 63), (40, 33)])
def test_the_square_is_that_of_other_sets(shape):
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 255, (8, 8, 3), np.uint8)
  picture = np.asarray(
    align.Image.fromarray(coarse).resize(shape[::-1], 3), np.uint8
  )
  found, (scale, *shift) = reader.square(picture, 32, 16)
  wanted = align.centre_square(picture, 32)
  assert np.abs(found.astype(int) - wanted.image).mean() < 2
  assert np.allclose(
    wanted.matrix, [[scale, 0, shift[0]], [0, scale, shift[1]]]
  )


def test_shrinking_does_not_alias():
  fine = np.indices((256, 256)).sum(0) % 2 * 255
  fine = np.repeat(fine[..., None], 3, 2).astype(np.uint8)
  found, _ = reader.square(fine, 32, 32)
  assert np.abs(found.astype(int) - 127).max() < 4


def test_persons():
  def person(path, rule, separator="_"):
    return index.person_of(pathlib.PurePath(path), rule, separator)

  vox = "train/id10001#7w0IBEWc9Qw#000993#001143.mp4"
  assert person(vox, "voxceleb1") == "id10001"
  assert person("id10001#7w0IBEWc9Qw#00001#002.mp4", "voxceleb1") == "id10001"
  assert person("id1/video/00001.mp4", "parent") == "video"
  assert person("id1/video/00001.mp4", "top") == "id1"
  assert person("HDTF/WDA_BarackObama_000.mp4", "prefix") == "WDA_BarackObama"
  assert person("a-1.clip", "prefix", "-") == "a"
  for path, rule, message in (
    ("id10001.mp4", "voxceleb1", "is not person#video#start#end.mp4"),
    ("#a#b#c.mp4", "voxceleb1", "is not person#"),
    ("a.mp4", "parent", "lies in no folder"),
    ("a.mp4", "top", "lies in no folder"),
    ("_a.mp4", "prefix", "nothing before a '_'"),
  ):
    with pytest.raises(ValueError, match=message):
      person(path, rule)


def test_clips_are_found(tmp_path):
  def make(*paths):
    for path in paths:
      (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / path).write_text("x")

  make(
    "p/a/1.mp4",
    "p/a/1.jpg",  # a thumbnail beside a video
    "p/b/000.png",
    "p/b/001.png",
    "p/c.MP4/000.png",
    "q/.hidden/1.mp4",
    "q/._1.mp4",
    "q/x.csv",
    "r.webm",
  )
  (tmp_path / "q" / "broken.mp4").symlink_to("nowhere")
  clips, wrong = index.find_clips(tmp_path, "parent")
  assert [(clip.person, clip.path, clip.size) for clip in clips] == [
    ("a", "p/a/1.mp4", 1),
    ("p", "p/b", 0),
    ("p", "p/c.MP4", 0),
  ]
  assert wrong == {
    "r.webm": "it lies in no folder that would name the person",
    "q/broken.mp4": "it is a link to nothing",
  }
  with pytest.raises(
    index.VideoError, match="no clip found .*; 1.mp4: it lies"
  ):
    index.find_clips(tmp_path / "q" / ".hidden", "parent")
  before = index.fingerprint(clips)
  make("p/a/1.mp4")
  assert index.fingerprint(index.find_clips(tmp_path, "parent")[0]) == before
  (tmp_path / "p/a/1.mp4").write_text("xy")
  assert index.fingerprint(index.find_clips(tmp_path, "parent")[0]) != before


def test_points_beside_a_clip(tmp_path):
  points = np.random.default_rng(0).normal(size=(3, 68, 2))
  clip = tmp_path / "a.mp4"
  with pytest.raises(reader.ClipError, match="no landmarks beside it"):
    reader.read_points(clip)
  lines = [[i, *points[i].ravel()] for i in (2, 0)]
  text = "\n".join(",".join(repr(float(x)) for x in line) for line in lines)
  (tmp_path / "a.csv").write_text(text)
  found = reader.read_points(clip)
  assert np.array_equal(found[[0, 2]], points[[0, 2]])
  assert np.isnan(found[1]).all()
  for wrong, message in (
    ("0,1,2\n", "line 1: 3 numbers, wanted a frame and 136"),
    ("x\n0,a\n", "line 2: could not convert"),
    (text.replace("2.0,", "1e12,", 1), "wanted a frame"),
    ("", r"shape \(0, 68, 2\)"),
  ):
    (tmp_path / "a.csv").write_text(wrong)
    if message.startswith("shape"):
      assert len(reader.read_points(clip)) == 0
      continue
    with pytest.raises(reader.ClipError, match=message):
      reader.read_points(clip)
  np.savez(tmp_path / "a.npz", points)
  assert np.array_equal(reader.read_points(clip), points)
  np.savez(tmp_path / "a.npz", points[:, :5])
  with pytest.raises(reader.ClipError, match=r"\(3, 5, 2\), wanted"):
    reader.read_points(clip)
  np.savez(tmp_path / "a.npz", a=points, b=points)
  with pytest.raises(reader.ClipError, match="wanted one array"):
    reader.read_points(clip)
  (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut")
  with pytest.raises(reader.ClipError, match="cannot be read"):
    reader.read_points(clip)


def test_settings_are_checked():
  for values, message in (
    ({"size": 4}, "--size=4; wanted 8"),
    ({"frame_step": 0}, "--frame_step=0; wanted 1"),
    ({"identity": "face"}, "--identity=face; wanted one of voxceleb1"),
    ({"separator": ""}, "--separator is empty"),
  ):
    with pytest.raises(ValueError, match=message):
      settings.VideoSet(**values)
