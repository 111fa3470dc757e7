"""A tiny made-up copy of the folder CelebAMask-HQ."""

import numpy as np
from PIL import Image

NAMES = tuple(
  "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs "
  "Big_Lips Big_Nose Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows "
  "Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones "
  "Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin "
  "Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair "
  "Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
  "Wearing_Necktie Young".split()
)
PARTS = ("skin", "hair", "l_eye")


def write(root, count=10, side=32):
  """Writes pictures of one colour each, attributes, masks and the mapping.

  Returns:
    Attributes int8 (count, 40) and CelebA's part of each picture (count,).
  """
  rng = np.random.default_rng(0)
  table = rng.integers(0, 2, (count, len(NAMES)), np.int8)
  table[:, NAMES.index("Smiling")] = np.arange(count) % 2
  original = 7 + 3 * rng.permutation(count)
  parts = np.arange(count) % 3
  (root / "CelebA-HQ-img").mkdir(parents=True)
  masks = root / "CelebAMask-HQ-mask-anno" / "0"
  masks.mkdir(parents=True)
  for i in range(count):
    colour = np.full((side, side, 3), (20 * i, 255 - 20 * i, 90), np.uint8)
    picture = Image.fromarray(colour)
    picture.save(root / "CelebA-HQ-img" / f"{i}.jpg", quality=95)
    for k, name in enumerate(PARTS):  # each over the left of the one before
      mask = np.zeros((side // 2, side // 2, 3), np.uint8)
      mask[:, : side // (2 * (k + 1))] = 255
      Image.fromarray(mask).save(masks / f"{i:05d}_{name}.png")
  order = rng.permutation(count)  # the lines' order does not matter
  lines = [str(count), " ".join(NAMES)]
  lines += [
    f"{i}.jpg  " + " ".join(str(2 * int(v) - 1) for v in table[i])
    for i in order
  ]
  (root / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join(lines))
  lines = ["idx       orig_idx   orig_file"]
  lines += [f"{i} {original[i]} {original[i] + 1:06d}.jpg" for i in order]
  (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines))
  lines = [f"{original[i] + 1:06d}.jpg {parts[i]}" for i in range(count)]
  lines.append("000001.jpg 0")  # CelebA has more pictures
  (root / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
  return table, parts
