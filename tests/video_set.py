"""Writes small sets of talking-head videos, drawn, as VoxCeleb1 is laid out."""

import dataclasses
import fractions
import pathlib

import numpy as np

from data_pipelines import images, records
from data_pipelines.synthetic_heads import worlds
from data_pipelines.videos import prepare, settings, splits

KEYS = 4  # frames between two drawn expressions


def make_video_set(
  folder,
  people=4,
  clips=2,
  frames=6,
  size=32,
  world=worlds.WORLD,
  seed=0,
  folders=1,
):
  """Draws people who talk.

  Args:
    folder: gets `{train,test}/<person>#<video>#<start>#<end>.mp4`.
    people: how many. The last one is in train and in test, if there are two.
    clips: of each person.
    frames: of each clip.
    size: side in pixels; even.
    world: see `worlds.load_world`.
    seed: of the world.
    folders: so many clips (the first ones) are folders of PNG files.

  Returns:
    The clips' paths below the folder, sorted.
  """
  folder = pathlib.Path(folder)
  paths = []
  for person in range(people):
    for clip in range(clips):
      in_test = person == people - 1 and clip % 2 and people > 1
      name = f"id{10001 + person}#vid{clip}#{0:06d}#{frames:06d}.mp4"
      path = folder / ("test" if in_test else "train") / name
      pictures = draw_clip(person, clip, frames, size, world, seed)
      if len(paths) < folders:
        for number, picture in enumerate(pictures):
          images.write_image(path / f"{number:07d}.png", picture)
      else:
        write_video(path, pictures)
      paths.append(path.relative_to(folder).as_posix())
  return sorted(paths)


def draw_clip(person, clip, frames, size, world=worlds.WORLD, seed=0):
  """uint8 pictures of one person moving from expression to expression."""
  world = worlds.load_world(world)
  identity = world.sample_identity(seed, person)
  keys = [
    world.sample_frame(seed, person, 1000 * clip + i)
    for i in range(-(-frames // KEYS) + 1)
  ]
  moving = []
  for number in range(frames):
    place, share = divmod(number, KEYS)
    first, second = keys[place], keys[place + 1]
    moving.append(_between(first, second, share / KEYS, keys[0]))
  drawn = world.render_frames(identity, moving, size)
  return [example["image"] for example in drawn]


def _between(first, second, share, still):
  """A frame on the way; the light stays as it is."""
  changes = {}
  for field in dataclasses.fields(first):
    before, after = (getattr(one, field.name) for one in (first, second))
    if isinstance(before, np.ndarray):
      mixed = (1 - share) * before + share * after
      changes[field.name] = mixed.astype(before.dtype)
  return dataclasses.replace(first, **{**changes, "light": still.light})


def write_video(
  path, pictures, rotation=0, options=None, matrix=None, pixels=None
):
  """Writes an mp4 whose index comes first, as files of the web have it.

  Args:
    path: of the file.
    pictures: uint8 (h, w, 3), its frames as they are stored.
    rotation: degrees by which players turn them, counterclockwise.
    options: of the container.
    matrix: nine numbers by which players turn and mirror them.
    pixels: width of a pixel over its height, such as "4/3".
  """
  import av

  path.parent.mkdir(parents=True, exist_ok=True)
  height, width = pictures[0].shape[:2]
  with av.open(
    str(path), "w", options={"movflags": "faststart", **(options or {})}
  ) as file:
    stream = file.add_stream("libx264", rate=25, options={"crf": "10"})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    if rotation:
      stream.set_display_rotation(rotation)
    if matrix:
      stream.set_display_matrix(matrix)
    if pixels:
      stream.codec_context.sample_aspect_ratio = fractions.Fraction(pixels)
    for picture in pictures:
      frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
      file.mux(stream.encode(frame))
    file.mux(stream.encode())


def add_bad_clips(folder):
  """One clip of each bad kind; returns {path: part of the reason}."""
  top = pathlib.Path(folder) / "train"
  noise = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
  write_video(top / "id10001#cut#000000#000020.mp4", list(noise))
  whole = (top / "id10001#cut#000000#000020.mp4").read_bytes()
  cut = whole[: len(whole) // 2]
  (top / "id10001#cut#000000#000020.mp4").write_bytes(cut)
  (top / "id10002#text#000000#000020.mp4").write_text("no video")
  (top / "id10002#none#000000#000020.mp4").write_bytes(b"")
  (top / "id10003#void#000000#000020.mp4").mkdir()
  # Torn after the first frames have been read, annotated and handed on.
  for number in range(40):
    file = top / "id10002#torn#000000#000040.mp4" / f"{number:07d}.png"
    images.write_image(file, noise[0])
  file.write_bytes(file.read_bytes()[:100])
  write_video(top / "wrong.mp4", list(noise[:2]))
  write_video(top / "id10001#tiny#000000#000002.mp4", list(noise[:2, :16, :16]))
  return {
    "train/id10001#cut#000000#000020.mp4": "cut short",
    "train/id10002#text#000000#000020.mp4": "cannot be read",
    "train/id10002#none#000000#000020.mp4": "cannot be read",
    "train/id10002#torn#000000#000040.mp4": "frame 39: ",
    "train/id10003#void#000000#000020.mp4": "no frame",
    "train/wrong.mp4": "the name is not person#video#start#end.mp4",
    "train/id10001#tiny#000000#000002.mp4": "16x16 pixels",
  }


def numbered_clips(folder, count=7, people=2):
  """Clips of frames that say their number in every pixel; (input, settings)."""
  for person in range(people):
    for number in range(count):
      picture = np.full((16, 16, 3), 10 * person + number, np.uint8)
      path = folder / "in" / f"p{person}" / "clip" / f"{number:03d}.png"
      images.write_image(path, picture)
  return folder / "in", settings.VideoSet(size=16)


def everybody(folder):
  """A split file that trains on all of `numbered_clips`."""
  path = folder / "split.json"
  path.write_text('{"train": ["p0", "p1"]}')
  return path


def prepare_quietly(clips, output, chosen, **options):
  """`prepare_videos` in this process and without a bar."""
  options = {"processes": 0, "progress": False, **options}
  return prepare.prepare_videos(clips, output, chosen, **options)


def examples_of(output):
  """{(clip, frame): (split, example)} of a whole set."""
  out = {}
  for split in splits.SPLITS:
    if not (output / split).is_dir():
      continue
    source = records.RecordSource(output / split)
    names = source.metadata["names"]
    for i in range(len(source)):
      example = source[i]
      clip = names["video"][example["video"]]
      assert names["identity"][example["identity"]] in clip
      out[clip, int(example["frame"])] = (split, example)
  return out
