"""Names, colours and styles the synthetic heads choose from."""

HAIR_COLOURS = {
  "black": (0.022, 0.018, 0.017),
  "dark_brown": (0.055, 0.032, 0.02),
  "brown": (0.13, 0.068, 0.034),
  "auburn": (0.26, 0.085, 0.035),
  "blond": (0.52, 0.35, 0.16),
  "light_blond": (0.72, 0.56, 0.33),
  "gray": (0.36, 0.35, 0.345),
  "white": (0.72, 0.71, 0.69),
  "dyed": (0.45, 0.12, 0.30),
}
HAIR_COLOUR_NAMES = tuple(HAIR_COLOURS)
COLOUR_GROUPS = {  # CelebA name: colours it covers
  "Black_Hair": ("black", "dark_brown"),
  "Brown_Hair": ("brown", "auburn"),
  "Blond_Hair": ("blond", "light_blond"),
  "Gray_Hair": ("gray", "white"),
}
COLOUR_WEIGHTS_LIGHT = (0.17, 0.16, 0.21, 0.11, 0.19, 0.10, 0.04, 0.02)
COLOUR_WEIGHTS_DARK = (0.45, 0.30, 0.12, 0.03, 0.04, 0.01, 0.03, 0.02)

IRIS_COLOURS = (
  (0.10, 0.045, 0.018),
  (0.16, 0.085, 0.03),
  (0.05, 0.025, 0.012),
  (0.16, 0.26, 0.34),
  (0.10, 0.20, 0.36),
  (0.12, 0.20, 0.10),
  (0.22, 0.16, 0.06),
  (0.20, 0.22, 0.23),
)
LIPSTICKS = (
  (0.55, 0.04, 0.06),
  (0.50, 0.10, 0.16),
  (0.35, 0.03, 0.10),
  (0.60, 0.18, 0.15),
)
FRAME_COLOURS = (
  (0.02, 0.02, 0.02),
  (0.12, 0.05, 0.02),
  (0.30, 0.22, 0.08),
  (0.35, 0.02, 0.03),
  (0.03, 0.06, 0.20),
  (0.50, 0.50, 0.52),
)

# Hair shell parameters; lengths in cm, angles in degrees.
STYLE_DEFAULTS = dict(
  top=1.0,
  side=0.8,
  back=0.8,
  length=0.0,
  quiff=0.0,
  lock=0.25,
  locks=46.0,
  part=0.0,
  groove=0.0,
  sweep=2.0,
  curl=0.0,
  curl_scale=0.8,
  wave=0.0,
  wave_count=2.0,
  flare=0.0,
  pinch=0.0,
  start=60.0,
  bangs=0.0,
  bang_sweep=0.0,
  front_layer=0.0,
  bun=0.0,
  shown=1.0,
  painted=0.0,
)
STYLES = {
  "bald": dict(shown=0.0),
  "buzz": dict(top=0.28, side=0.22, back=0.25, lock=0.0, painted=1.0),
  "crew": dict(top=1.0, side=0.55, back=0.7, quiff=0.35, lock=0.22),
  "quiff": dict(top=1.35, side=0.6, back=0.8, quiff=1.5, lock=0.45),
  "side_part": dict(
    top=1.25,
    side=0.85,
    back=1.0,
    quiff=0.5,
    lock=0.28,
    part=0.35,
    groove=0.8,
    sweep=5.0,
  ),
  "messy": dict(top=1.7, side=1.1, back=1.2, quiff=0.7, lock=0.75, locks=34.0),
  "pixie": dict(
    top=1.5,
    side=1.0,
    back=1.0,
    lock=0.35,
    bangs=1.0,
    bang_sweep=5.0,
    sweep=4.0,
  ),
  "bun": dict(top=0.9, side=0.6, back=0.8, lock=0.15, bun=1.0),
  "curly_short": dict(
    top=2.3, side=1.4, back=1.5, lock=0.1, curl=0.75, curl_scale=0.75
  ),
  "afro": dict(top=5.0, side=4.2, back=4.0, lock=0.1, curl=0.5, curl_scale=1.0),
  "bob": dict(
    top=1.5,
    side=1.6,
    back=1.8,
    length=9.0,
    lock=0.3,
    start=58.0,
    flare=-0.4,
    pinch=-0.4,
    groove=0.5,
  ),
  "wavy_lob": dict(
    top=1.6,
    side=1.5,
    back=1.8,
    length=14.0,
    lock=0.45,
    start=56.0,
    flare=1.2,
    pinch=0.3,
    wave=1.0,
    wave_count=1.7,
    groove=0.6,
  ),
  "long": dict(
    top=1.4,
    side=1.3,
    back=1.7,
    length=22.0,
    lock=0.32,
    start=57.0,
    flare=1.4,
    pinch=0.4,
    groove=0.7,
    front_layer=0.1,
  ),
  "long_wavy": dict(
    top=1.8,
    side=1.9,
    back=2.0,
    length=21.0,
    lock=0.55,
    start=55.0,
    flare=2.6,
    pinch=0.2,
    wave=1.35,
    wave_count=2.2,
    groove=0.5,
  ),
  "curly_long": dict(
    top=2.6,
    side=2.6,
    back=2.6,
    length=13.0,
    lock=0.1,
    start=55.0,
    flare=2.2,
    pinch=-0.5,
    curl=0.9,
    curl_scale=0.7,
  ),
}
STYLE_NAMES = tuple(STYLES)
MASCULINE_STYLES = (
  "buzz",
  "crew",
  "crew",
  "quiff",
  "side_part",
  "messy",
  "curly_short",
  "afro",
  "long",
)
FEMININE_STYLES = (
  "bob",
  "bob",
  "wavy_lob",
  "long",
  "long_wavy",
  "curly_long",
  "bun",
  "pixie",
  "afro",
  "curly_short",
)
FRINGE_STYLES = ("crew", "messy", "curly_short")  # short cuts that may have one
WAVY_STYLES = (
  "messy",
  "curly_short",
  "afro",
  "wavy_lob",
  "long_wavy",
  "curly_long",
)

CLOTHES = ("crew", "vneck", "turtle", "shirt", "scoop")
CLOTHES_WEIGHTS = (0.30, 0.20, 0.12, 0.25, 0.13)
PATTERNS = ("plain", "stripe", "plaid", "print")
PATTERN_WEIGHTS = (0.55, 0.20, 0.12, 0.13)
HATS = ("none", "beanie", "cap")
BACKGROUNDS = ("gradient", "discs", "rectangles", "clouds", "studio")

# Shift of the shape means per unit of the masculine scalar.
MASCULINE_SHIFT = {
  "brow_ridge": 1.1,
  "neck_width": 1.2,
  "jaw_width": 0.9,
  "gonial_angle": 0.8,
  "chin_width": 1.0,
  "chin_length": 0.4,
  "face_length": 0.4,
  "nose_length": 0.45,
  "nose_width": 0.45,
  "tip_bulb": 0.4,
  "bridge_height": 0.3,
  "head_width": 0.3,
  "eye_size": -0.9,
  "upper_lip": -0.9,
  "lower_lip": -0.8,
  "brow_height": -0.6,
  "eye_open": -0.4,
  "nose_tip_up": -0.4,
  "cheek_full": -0.3,
}
AGE_SHIFT = {"ear_size": 0.8, "nose_length": 0.5, "upper_lip": -0.8}
