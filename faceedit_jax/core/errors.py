"""Errors a user can cause and mend; commands print them as one line."""

import contextlib

_QUOTES = "\"'"


class UserError(ValueError):
  """A mistake in a config, a path or a file: what was got, what was wanted.

  The command line prints the message alone, without a traceback, and exits
  with code 2. The message is a single sentence that names the place to change.
  """


class WorkdirError(UserError):
  """The working directory cannot be used: full, read-only, or another run's."""


class CheckpointError(UserError):
  """A checkpoint is missing, or does not hold what was asked of it."""


class DivergedError(UserError):
  """A loss stopped being a finite number."""


@contextlib.contextmanager
def as_user_error(where: str = ""):
  """Turns a ValueError raised while reading user input into a UserError.

  Args:
    where: what was being read, put before the message.
  """
  try:
    yield
  except UserError:
    raise
  except (ValueError, KeyError, AttributeError, OSError) as e:
    text = str(e.args[0]) if isinstance(e, KeyError) and e.args else str(e)
    # ml_collections puts its "Did you mean" on a second line.
    text = " ".join(text.split()) or type(e).__name__
    key = text.strip(_QUOTES)
    if isinstance(e, KeyError | AttributeError) and key.isidentifier():
      text = f"{key!r} is missing"  # the message was no more than its name
    raise UserError(f"{where}: {text}" if where else text) from e
