"""Whether five points given for a picture can be those of a face.

Points come in many orders and units; a set in another one aligns the face into
a tiny, turned or mirrored square without any error. The check is one of
plausibility: the five must look like a face from some side.
"""

import itertools

import numpy as np

from data_pipelines import align

ORDER = (
  "left eye, right eye, nose, left and right corner of the mouth, as seen in "
  "the picture, each x,y in pixels from the upper left corner"
)
_NAMES = ("left eye", "right eye", "nose", "left mouth", "right mouth")

# Of the similarity fit to the template, as a share of the points' own spread.
_RESIDUAL = 0.7
_TILT = 135.0  # degrees in the plane of the picture, to either side
# Along the line from the eyes (0) to the mouth (1).
_NOSE = (-0.1, 1.25)
# Beside that line, in its length, of a head whose width in it is w: heads that
# turn get narrower as the nose moves to the side.
_NOSE_BESIDE = (0.95, -0.45)  # at w = 0, and its slope
_PARALLEL = 0.7  # cosine between eyes and mouth, at least
_PIXELS = 2.0  # from eyes to mouth, at least
_SHARE = 1 / 400  # the same, of the picture's longer side
_OUTSIDE = 0.5  # how far a point may lie outside, in the same length
_UPRIGHT = 60.0  # degrees that a guess at what the points are may leave

# Indices of the 68 points (iBUG) that make each of the five.
_FIVE_OF_68 = (range(36, 42), range(42, 48), [30], [48], [54])


def of_68(points: np.ndarray) -> np.ndarray:
  """Eye centres, tip of the nose, corners of the mouth of (68, 2) points."""
  return np.stack([points[list(group)].mean(0) for group in _FIVE_OF_68])


def fault(
  points: np.ndarray, picture: tuple[int, int] | None = None
) -> str | None:
  """What keeps five points from being those of a face.

  The limits leave room beyond what was measured: five points of 1,075 real
  portraits, and of 2,000 synthetic heads of all expressions, to the limits of
  their world (60 degrees of yaw, 22 of pitch).

  - The residual of the similarity fit to `CANONICAL5`, as a share of the
    points' spread, was at most 0.20 and 0.52; the limit is 0.7, which a head
    reaches beyond 75 degrees of yaw. Sets with swapped sides, or y before x,
    have 0.83 and more.
  - Eyes and mouth lie across the line from eyes to mouth, left before right,
    and point the same way (cosine 0.7; measured 0.998 and more). This finds
    eyes or mouth swapped alone, whose residual begins at 0.52.
  - The nose lies between -0.1 and 1.25 along that line (measured 0.21 to 1.0),
    and beside it no further than a head as narrow as this one has turned its
    nose (measured up to 0.59 of the line).
  - Faces may be tilted by 135 degrees, as in photos that lie on their side.
  - In the picture: from eyes to mouth at least 2 pixels and a 400th of the
    longer side; the middle inside, no point further outside than half of that
    length.

  What is turned by a quarter with its order looks like a tilted face and
  passes; so do points of a smaller version of the picture, which look like a
  small face (`folder.prepare_folder` finds them where all pictures have them).

  Args:
    points: finite (5, 2), in the order of `align.CANONICAL5`, in pixels.
    picture: height and width in pixels; without them it is not checked whether
      the points lie in the picture and how large the face is there.

  Returns:
    None for a face, else a phrase that begins with "look like" or "lie".
  """
  points = np.asarray(points, np.float64)
  reach = _reach(points)
  low, high = points.min(), points.max()
  if reach < _PIXELS or (picture and reach < _SHARE * max(picture)):
    if low >= -1.0 and high <= 2.0:
      return "look like shares of the picture's side (0 to 1), not pixels"
    return f"lie within {np.ptp(points, axis=0).max():.1f} pixels"
  if not _is_face(points):
    return _guess(points, picture)
  if picture:
    height, width = picture
    centre = points.mean(0)
    out = np.maximum(-points, points - (width, height)).max()
    inside = (centre >= 0).all() and (centre <= (width, height)).all()
    if out > _OUTSIDE * reach or not inside:
      return (
        f"lie outside the picture of {width}x{height} pixels, from "
        f"{_pair(points.min(0))} to {_pair(points.max(0))}, as if they were "
        "those of another size"
      )
  return None


def check(
  points: np.ndarray, picture: tuple[int, int] | None = None, name: str = ""
) -> np.ndarray:
  """Returns five points that can be those of a face, as float64 (5, 2).

  Args:
    points: in pixels, in the order of `align.CANONICAL5`.
    picture: its height and width in pixels, see `fault`.
    name: of the picture, for errors.

  Raises:
    AlignError: one line: they are not (5, 2) finite numbers, or make no face;
      says the wanted order.
  """
  points = align.check_points(points, name)
  problem = fault(points, picture)
  if problem:
    where = f"{name}: " if name else ""
    raise align.AlignError(f"{where}landmarks {problem}; wanted {ORDER}")
  return points


def _pair(point: np.ndarray) -> str:
  return f"({point[0]:.0f}, {point[1]:.0f})"


def _complex(points: np.ndarray) -> np.ndarray:
  return points @ np.array([1.0, 1.0j])


def _reach(points: np.ndarray) -> float:
  """The larger of: from one eye to the other, from the eyes to the mouth."""
  left, right, _, *mouth = _complex(points)
  return max(abs(right - left), abs(sum(mouth) - left - right) / 2)


def _fit(points: np.ndarray) -> tuple[float, float]:
  """Residual, as a share of the spread, and tilt in degrees of the best fit."""
  found, face = _complex(points), _complex(align.CANONICAL5.astype(np.float64))
  found, face = found - found.mean(), face - face.mean()
  turn = np.sum(found * face.conj()) / np.sum(np.abs(face) ** 2)
  spread = np.sum(np.abs(found) ** 2)
  left = np.sum(np.abs(found - turn * face) ** 2) / max(spread, 1e-12)
  return float(np.sqrt(left)), float(np.degrees(np.angle(turn)))


def _is_face(points: np.ndarray, tilt: float = _TILT) -> bool:
  left, right, nose, *mouth = _complex(points)
  eyes = (left + right) / 2
  down = sum(mouth) / 2 - eyes
  if abs(down) < 1e-6:
    return False
  # In units of the line from eyes to mouth: along it, and to its left, which
  # is the right in the picture.
  across_eyes, across_mouth, nose = (
    offset / down for offset in (right - left, mouth[1] - mouth[0], nose - eyes)
  )
  if across_eyes.imag >= 0 or across_mouth.imag >= 0:
    return False
  both = abs(across_eyes) * abs(across_mouth)
  if (across_eyes * across_mouth.conjugate()).real < _PARALLEL * both:
    return False
  width = -(across_eyes.imag + across_mouth.imag) / 2
  beside = _NOSE_BESIDE[0] + _NOSE_BESIDE[1] * width
  if abs(nose.imag) > beside or not _NOSE[0] <= nose.real <= _NOSE[1]:
    return False
  residual, turned = _fit(points)
  return residual <= _RESIDUAL and abs(turned) <= tilt


def _guess(points: np.ndarray, picture: tuple[int, int] | None) -> str:
  """What the points look like, by what makes an upright face of them."""
  guesses = [
    (points[[1, 0, 2, 4, 3]], "right before left (the sides are swapped)"),
    (points[[1, 0, 2, 3, 4]], "swapped eyes"),
    (points[[0, 1, 2, 4, 3]], "swapped corners of the mouth"),
    (points[:, ::-1], "y before x"),
    (points * (1.0, -1.0), "y counted upwards"),
    (points.reshape(2, 5).T, "x1,...,x5 before y1,...,y5"),
  ]
  fits = [
    (_fit(face)[0] + abs(_fit(face)[1]) / 90.0, what)
    for face, what in guesses
    if _is_face(face, _UPRIGHT)
  ]
  if fits:
    return f"look like {min(fits)[1]}"
  for places in itertools.permutations(range(5)):
    if _is_face(points[list(places)], _UPRIGHT):
      order = ", ".join(_NAMES[places.index(i)] for i in range(5))
      return f"look like the order {order}"
  return "look like no face"
