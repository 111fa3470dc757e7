"""What happens to one example between the source and the batch.

A transform is a function (example, generator) -> example. All randomness
comes from the generator, which the loader seeds by (seed, global index).
Points, camera and regions follow whatever is done to the picture. Of codes that
cannot follow, no field is left: a mirrored or stretched picture has none of the
shape, pose and light that a morphable model could give it exactly.

A new one is a file here, with a frozen dataclass of its options, and a field of
`options.Options`.
"""

from data_pipelines.transforms.compose import Compose
from data_pipelines.transforms.crops import crop, mirror, stretch
from data_pipelines.transforms.face_crop import ARCFACE5, FaceCrop
from data_pipelines.transforms.faceless import Faceless
from data_pipelines.transforms.fields import Drop, Select, select
from data_pipelines.transforms.flip import Flip
from data_pipelines.transforms.options import Options, make
from data_pipelines.transforms.photometric import Photometric
from data_pipelines.transforms.pixels import ToFloat, to_float, to_uint8
from data_pipelines.transforms.random_crop import RandomCrop
from data_pipelines.transforms.resize import Resize
from data_pipelines.transforms.resized_crop import ResizedCrop
from data_pipelines.transforms.tokenize_text import Tokenize, TokenizeText

__all__ = [
  "ARCFACE5",
  "Compose",
  "Drop",
  "FaceCrop",
  "Faceless",
  "Flip",
  "Options",
  "Photometric",
  "RandomCrop",
  "Resize",
  "ResizedCrop",
  "Select",
  "ToFloat",
  "Tokenize",
  "TokenizeText",
  "crop",
  "make",
  "mirror",
  "select",
  "stretch",
  "to_float",
  "to_uint8",
]
