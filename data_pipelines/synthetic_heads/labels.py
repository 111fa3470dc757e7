"""Classes, regions, attributes and captions of the synthetic heads.

Class numbers are those of CelebAMask-HQ's `g_mask.py`
(github.com/switchablenorms/CelebAMask-HQ); l_ and r_ are the subject's own
left (+x, right in the picture) and right.
"""

import numpy as np

from data_pipelines.synthetic_heads import tables
from data_pipelines.synthetic_heads.factors import Frame, Identity
from faceedit_jax.morphable.head_bases import EXPRESSION_NAMES, SHAPE_NAMES

CLASS_NAMES = (
  "background",
  "skin",
  "nose",
  "eye_g",
  "l_eye",
  "r_eye",
  "l_brow",
  "r_brow",
  "l_ear",
  "r_ear",
  "mouth",
  "u_lip",
  "l_lip",
  "hair",
  "hat",
  "ear_r",
  "neck_l",
  "neck",
  "cloth",
)
LABEL = {name: i for i, name in enumerate(CLASS_NAMES)}
CLASS_COLOURS = np.array(  # the colours of CelebAMask-HQ's `g_color.py`
  [
    [0, 0, 0],
    [204, 0, 0],
    [76, 153, 0],
    [204, 204, 0],
    [51, 51, 255],
    [204, 0, 204],
    [0, 255, 255],
    [255, 204, 204],
    [102, 51, 0],
    [255, 0, 0],
    [102, 204, 0],
    [255, 255, 0],
    [0, 0, 153],
    [0, 0, 204],
    [255, 51, 153],
    [0, 204, 204],
    [0, 51, 0],
    [255, 153, 51],
    [0, 204, 0],
  ],
  np.uint8,
)

REGION_NAMES = ("face", "hair", "clothes", "background")
REGION_COLOURS = np.array(
  [[230, 190, 160], [110, 60, 160], [40, 140, 200], [60, 60, 60]], np.uint8
)
_REGION_OF = {"background": 3, "hair": 1, "hat": 1, "neck_l": 2, "cloth": 2}


def region_table(neck_is_face: bool = False) -> np.ndarray:
  """Region (0 face, 1 hair, 2 clothes, 3 background) of each class (19,).

  Args:
    neck_is_face: count the neck as face instead of clothes.
  """
  table = np.array([_REGION_OF.get(name, 0) for name in CLASS_NAMES], np.uint8)
  table[LABEL["neck"]] = 0 if neck_is_face else 2
  return table


ATTRIBUTE_NAMES = (
  "5_o_Clock_Shadow",
  "Arched_Eyebrows",
  "Bald",
  "Bangs",
  "Big_Nose",
  "Black_Hair",
  "Blond_Hair",
  "Brown_Hair",
  "Bushy_Eyebrows",
  "Eyeglasses",
  "Goatee",
  "Gray_Hair",
  "Male",
  "Mouth_Slightly_Open",
  "Mustache",
  "Narrow_Eyes",
  "No_Beard",
  "Pale_Skin",
  "Pointy_Nose",
  "Rosy_Cheeks",
  "Smiling",
  "Wavy_Hair",
  "Wearing_Earrings",
  "Wearing_Hat",
  "Wearing_Lipstick",
  "Young",
)
YOUNG_AGE = 0.55
LEAST_SMILE = 0.35
OPEN_JAW = np.deg2rad(4.0)


def attributes(identity: Identity, frame: Frame) -> dict[str, bool]:
  """CelebA-named binary attributes of one picture, in ATTRIBUTE_NAMES order."""
  shape = dict(zip(SHAPE_NAMES, identity.shape, strict=True))
  face = dict(zip(EXPRESSION_NAMES, frame.expression, strict=True))
  hair, beard, hat = identity.hair, identity.beard, identity.hat["kind"] > 0
  bald = hair["shown"] == 0
  colour = tables.HAIR_COLOUR_NAMES[int(hair["colour_name"])]
  style = tables.STYLE_NAMES[int(hair["style"])]
  full, stubble = beard["full"] > 0, beard["stubble"] > 0
  blink = min(face["blink_L"], face["blink_R"])
  values = {
    "5_o_Clock_Shadow": stubble and not full,
    "Arched_Eyebrows": identity.brows["arch"] > 0.35,
    "Bald": bald and not hat,
    "Bangs": hair["bangs"] > 0 and not hat and not bald,
    "Big_Nose": shape["nose_width"] > 0.8,
    "Bushy_Eyebrows": identity.brows["thickness"] > 1.35,
    "Eyeglasses": identity.glasses["on"] > 0,
    "Goatee": full and beard["goatee"] > 0,
    "Male": identity.person["masculine"] > 0,
    "Mouth_Slightly_Open": frame.jaw[0] > OPEN_JAW,
    "Mustache": beard["moustache"] > 0,
    "Narrow_Eyes": blink > 0.35,
    "No_Beard": not full and beard["moustache"] == 0 and not stubble,
    "Pale_Skin": identity.skin["melanin"] < 0.2,
    "Pointy_Nose": shape["nose_width"] < -0.6 and shape["nose_tip_out"] > 0.3,
    "Rosy_Cheeks": identity.skin["cheek"] > 0.6,
    "Smiling": face["smile"] > LEAST_SMILE,
    "Wavy_Hair": style in tables.WAVY_STYLES and not bald,
    "Wearing_Earrings": identity.earrings["on"] > 0,
    "Wearing_Hat": hat,
    "Wearing_Lipstick": identity.lips["lipstick"] > 0,
    "Young": identity.person["age"] <= YOUNG_AGE,
  }
  for name, colours in tables.COLOUR_GROUPS.items():
    values[name] = colour in colours and not bald
  return {name: bool(values[name]) for name in ATTRIBUTE_NAMES}


def _hair_words(identity: Identity) -> str:
  hair = identity.hair
  if hair["shown"] == 0:
    return "a bald head"
  style = tables.STYLE_NAMES[int(hair["style"])]
  colour = tables.HAIR_COLOUR_NAMES[int(hair["colour_name"])].replace("_", " ")
  length = "long" if hair["length"] > 12 else "short"
  words = {
    "afro": f"a {colour} afro",
    "bun": f"{colour} hair in a bun",
    "bob": f"a {colour} bob",
    "buzz": f"a {colour} buzz cut",
  }
  if style in words:
    text = words[style]
  else:
    texture = "wavy " if style in tables.WAVY_STYLES else ""
    text = f"{length} {texture}{colour} hair"
  return text + (" and bangs" if hair["bangs"] > 0 else "")


def _listed(words: list[str]) -> str:
  if len(words) < 2:
    return "".join(words)
  return ", ".join(words[:-1]) + " and " + words[-1]


def caption(identity: Identity, frame: Frame) -> str:
  """One English sentence about the picture."""
  has = attributes(identity, frame)
  age = identity.person["age"]
  years = "young " if age < 0.4 else ("old " if age > 0.7 else "")
  who = years + ("man" if has["Male"] else "woman")
  article = "an" if who[0] in "aeiou" else "a"
  details = [_hair_words(identity)]
  if identity.beard["full"] > 0:
    details.append("a goatee" if has["Goatee"] else "a beard")
  elif has["Mustache"]:
    details.append("a moustache")
  elif has["5_o_Clock_Shadow"]:
    details.append("stubble")
  worn = []
  if has["Eyeglasses"]:
    worn.append("sunglasses" if identity.glasses["sun"] > 0 else "glasses")
  if has["Wearing_Hat"]:
    worn.append("a " + tables.HATS[int(identity.hat["kind"])])
  if has["Wearing_Earrings"]:
    worn.append("earrings")
  if has["Wearing_Lipstick"]:
    worn.append("lipstick")
  garment = {"crew": "a sweater", "vneck": "a V-neck", "turtle": "a turtleneck"}
  garment |= {"shirt": "a shirt", "scoop": "a top"}
  worn.append(garment[tables.CLOTHES[int(identity.clothes["kind"])]])
  mood = "smiling" if has["Smiling"] else ""
  if has["Mouth_Slightly_Open"] and not mood:
    mood = "with the mouth open"
  text = f"{article} {who} with {_listed(details)}, wearing {_listed(worn)}"
  return text + (f", {mood}" if mood else "")
