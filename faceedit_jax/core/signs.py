"""Signs as people type them: a typographic minus counts as a minus."""

# What word processors, spreadsheets and telephones put in place of a minus:
# hyphens, figure and en dash, the mathematical minus, the small and the wide.
MINUSES = "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"
PLUSES = "\ufe62\uff0b"
_MINUS = str.maketrans(dict.fromkeys(MINUSES, "-"))


def plain_minus(text: str) -> str:
  """A text whose typographic minus signs are plain ones."""
  return text.translate(_MINUS)
