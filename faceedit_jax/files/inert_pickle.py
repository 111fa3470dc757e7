"""Reads a pickle as data: no name in it is ever looked up or called.

The standard library's `pickletools` takes the stream apart; the machine below
moves plain values. Whatever a pickle wants to import becomes a `Name`, whatever
it wants to make of one becomes an `Inert`, and a reader gives functions of its
own for the few names that it knows (a tensor's, an array's).
"""

import pickletools
import re
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

# Names that start programs, open files or fetch things. As everything else
# they would stay without effect; a file with one of them is a trap, though, and
# its owner should know. Packages with all below them; modules, which may also
# be somebody's package; names of builtins and io.
_TRAP_PACKAGES = frozenset(
  "os importlib ctypes multiprocessing asyncio http urllib requests pip".split()
)
_TRAP_MODULES = frozenset(
  "posix nt subprocess _posixsubprocess pty commands popen2 shutil runpy imp"
  " zipimport pkgutil _ctypes socket _socket webbrowser pdb bdb code codeop"
  " timeit trace cProfile profile sys signal marshal pickle _pickle ftplib"
  " smtplib ensurepip venv".split()
)
_TRAP_NAMES = frozenset(
  "eval exec execfile compile open file __import__ input breakpoint apply"
  " reload open_code FileIO".split()
)
# Dicts and lists under other names.
_DICTS = frozenset(
  [
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    "builtins.dict",
  ]
)
_LISTS = frozenset(
  [
    "collections.deque",
    "builtins.list",
    "builtins.tuple",
    "builtins.set",
    "builtins.frozenset",
    "torch.Size",
  ]
)
# What `pickletools` says of an early end.
_CUT = re.compile(r"exhausted|only \d+ remain|not enough data|no newline")
_KEYS = (str, bytes, int, float, bool, type(None))
# What may be copied beyond the size of the pickle, in values or pieces of
# text: a short pickle can name a long list again and again.
_COPIES, _PIECE = 1 << 18, 16


class Damaged(ValueError):
  """A pickle that ends early or makes no sense."""


class Trap(ValueError):
  """A pickle that names what runs programs, or what its reader excludes."""


class Name:
  """A name that a pickle would have imported.

  Attributes:
    text: "module.name".
  """

  __slots__ = ("text",)

  def __init__(self, text: str) -> None:
    self.text = text


class Inert:
  """Stands for an object of a class that nobody looks up.

  Attributes:
    kind: the class or function, "module.name".
    args: what it was to be made of.
    items: {key: value} or values that were put into it.
    state: its attributes.
  """

  __slots__ = ("kind", "args", "items", "state")

  def __init__(self, kind: str, args: Any = ()) -> None:
    self.kind, self.args = kind, args
    self.items: Any = None
    self.state: Any = None

  def build(self, state: Any) -> None:
    """Takes the attributes."""
    self.state = state


Known = Mapping[str, Callable[..., Any]]


def load(
  file: BinaryIO,
  known: Known,
  persistent: Callable[[Any], Any] | None = None,
  allows: Callable[[str], bool] = lambda name: True,
) -> Any:
  """Reads the next pickle of a file.

  Args:
    file: open in binary, at the beginning of a pickle; it is left at its end.
      Reading may not give more bytes than there are (a file in memory, a map).
    known: functions by "module.name" that are called with the arguments in the
      pickle. Some may return an `Inert` of a class of their own.
    persistent: of an id that stands for something outside of the pickle.
    allows: which names it may hold, beside those of dicts and lists.

  Returns:
    Plain values, dicts, lists, tuples, `Name`s, `Inert`s, and what `known` and
    `persistent` return. Dicts of other classes are dicts; their keys are
    strings, bytes, numbers or None, or else an `Inert` each.

  Raises:
    Trap: it names what runs programs or opens files, or is not allowed.
    Damaged: it ends early or makes no sense.
  """
  machine = _Machine(known, persistent, allows)
  try:
    for opcode, argument, _ in pickletools.genops(file):
      if opcode.name == "STOP":
        return machine.pop()
      machine.step(opcode.name, argument)
  except (Damaged, Trap):
    raise
  except Exception as e:  # anything at all can stand in a file
    text = " ".join(str(e).split()) or type(e).__name__
    if _CUT.search(text):
      text = "it is cut short"
    raise Damaged(f"{text:.120}") from e
  raise Damaged("it is cut short")


class _Machine:
  """The stack, the marks and the memo of one pickle."""

  def __init__(self, known: Known, persistent: Any, allows: Any) -> None:
    self._known, self._persistent = known, persistent
    self._allows = allows
    self._stack: list[Any] = []
    self._marks: list[list[Any]] = []
    self._memo: dict[int, Any] = {}
    self._read = self._copied = 0  # values, or pieces of text

  def step(self, name: str, argument: Any) -> None:
    """Follows one opcode."""
    self._read += 1
    if name in _VALUES:
      if isinstance(argument, str | bytes | bytearray):
        self._read += len(argument) // _PIECE
      self._stack.append(argument)
    elif name in _CONSTANTS:
      self._stack.append(_CONSTANTS[name]())
    elif name in _MEMOS:
      self._memo[argument] = self._stack[-1]
    elif name in _RECALLS:
      self._stack.append(self._memo[argument])
    elif name not in _NOTHING:
      getattr(self, f"_{name.lower()}")(argument)

  def pop(self) -> Any:
    """The top of the stack."""
    return self._stack.pop()

  def _pop_to_mark(self) -> list[Any]:
    items, self._stack = self._stack, self._marks.pop()
    return items

  def _spend(self, count: int) -> None:
    """Refuses to multiply what the pickle holds once."""
    self._copied += count
    if self._copied > _COPIES + 4 * self._read:
      raise Damaged("it copies its content over and over")

  def _mark(self, _) -> None:
    self._marks.append(self._stack)
    self._stack = []

  def _pop(self, _) -> None:
    if self._stack:
      self._stack.pop()
    else:
      self._pop_to_mark()

  def _pop_mark(self, _) -> None:
    self._pop_to_mark()

  def _dup(self, _) -> None:
    self._stack.append(self._stack[-1])

  def _memoize(self, _) -> None:
    self._memo[len(self._memo)] = self._stack[-1]

  def _tuple(self, _) -> None:
    items = self._pop_to_mark()
    self._stack.append(tuple(items))

  def _tuple1(self, _) -> None:
    self._stack[-1:] = [(self._stack[-1],)]

  def _tuple2(self, _) -> None:
    self._stack[-2:] = [tuple(self._last(2))]

  def _tuple3(self, _) -> None:
    self._stack[-3:] = [tuple(self._last(3))]

  def _last(self, count: int) -> list[Any]:
    if len(self._stack) < count:
      raise Damaged("it takes more from its stack than there is")
    return self._stack[-count:]

  def _list(self, _) -> None:
    items = self._pop_to_mark()
    self._stack.append(items)

  _frozenset = _list

  def _dict(self, _) -> None:
    items = self._pop_to_mark()
    self._stack.append({})
    self._put(items)

  def _append(self, _) -> None:
    item = self._stack.pop()
    self._add([item])

  def _appends(self, _) -> None:
    self._add(self._pop_to_mark())

  def _additems(self, _) -> None:
    self._add(self._pop_to_mark())

  def _add(self, items: list[Any]) -> None:
    goal = self._stack[-1]
    if isinstance(goal, Inert):
      if not isinstance(goal.items, list):
        goal.items = []
      goal = goal.items
    if not isinstance(goal, list):
      raise Damaged("it adds to what is no list")
    goal.extend(items)

  def _setitem(self, _) -> None:
    items = self._last(2)
    del self._stack[-2:]
    self._put(items)

  def _setitems(self, _) -> None:
    self._put(self._pop_to_mark())

  def _put(self, items: list[Any]) -> None:
    goal = self._stack[-1]
    if isinstance(goal, Inert):
      if not isinstance(goal.items, dict):
        goal.items = {}
      goal = goal.items
    if not isinstance(goal, dict) or len(items) % 2:
      raise Damaged("it sets items of what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
      # Hashing a tuple goes as deep as it is nested, which ends programs.
      goal[key if type(key) in _KEYS else Inert("key")] = value

  def _global(self, argument: str) -> None:
    module, _, name = argument.partition(" ")
    self._name(module, name)

  def _stack_global(self, _) -> None:
    module, name = self._last(2)
    del self._stack[-2:]
    if not isinstance(module, str) or not isinstance(name, str):
      raise Damaged("it names something by what is no text")
    self._name(module, name)

  def _name(self, module: str, name: str) -> None:
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(
      module, module
    )
    text = f"{module}.{name}"
    if (
      module.split(".")[0] in _TRAP_PACKAGES
      or module in _TRAP_MODULES
      or module in ("builtins", "io", "_io")
      and name.split(".")[0] in _TRAP_NAMES
      or not self._allows(text)
    ):
      raise Trap(text)
    self._stack.append(Name(text))

  def _extension(self, code: int) -> None:
    """Names by number, which only a registry of a running program knows."""
    self._name("copyreg", f"extension_{code}")

  _ext1 = _ext2 = _ext4 = _extension

  def _reduce(self, _) -> None:
    what, args = self._last(2)
    del self._stack[-2:]
    self._make(what, args)

  def _newobj(self, _) -> None:
    self._reduce(None)

  def _newobj_ex(self, _) -> None:
    self._stack.pop()  # arguments by name
    self._reduce(None)

  def _inst(self, argument: str) -> None:
    args = tuple(self._pop_to_mark())
    self._global(argument)
    self._make(self._stack.pop(), args)

  def _obj(self, _) -> None:
    what, *args = self._pop_to_mark()
    self._make(what, tuple(args))

  def _make(self, what: Any, args: Any) -> None:
    """Puts on the stack what stands for `what(*args)`."""
    if not isinstance(args, tuple):
      raise Damaged("it calls something with what is no tuple")
    name = what.text if isinstance(what, Name) else "an object"
    content = None
    if name in ("copyreg._reconstructor", "copyreg.__newobj__"):
      if not args or not isinstance(args[0], Name):
        raise Damaged("it makes an object of no class")
      if name == "copyreg._reconstructor":  # class, base, content
        content = args[2] if len(args) > 2 else None
        args = args[:1]
      name, args = args[0].text, args[1:]
    if name in self._known:
      made = self._known[name](*args)
    elif name in _DICTS:
      made = {}
      self._stack.append(made)
      if args and isinstance(args[-1], dict):
        self._spend(len(args[-1]))
        made.update(args[-1])
      elif args and isinstance(args[-1], list):
        self._spend(len(args[-1]))
        self._put([part for pair in args[-1] for part in _pair(pair)])
      return
    elif name in _LISTS:
      made = list(args[0]) if args and isinstance(args[0], list | tuple) else []
      self._spend(len(made))
    elif name in ("_codecs.encode", "builtins.bytes", "builtins.bytearray"):
      made = _encode(*args)
      self._spend(len(made) // _PIECE)
    else:
      made = Inert(name, args)
      if isinstance(content, dict | list):
        made.items = content
    self._stack.append(made)

  def _build(self, _) -> None:
    _, state = self._last(2)
    self._stack.pop()
    goal = self._stack[-1]
    # Attributes of dicts and lists ("_metadata" of a state dict) say nothing.
    if isinstance(goal, Inert):
      goal.build(state)

  def _binpersid(self, _) -> None:
    self._persid(self._stack.pop())

  def _persid(self, what: Any) -> None:
    if self._persistent is None:
      raise Damaged("it refers to what is not in the file")
    self._stack.append(self._persistent(what))

  def _next_buffer(self, _) -> None:
    raise Damaged("it refers to buffers that are not in the file")


def _pair(value: Any) -> tuple[Any, Any]:
  if not isinstance(value, list | tuple) or len(value) != 2:
    raise Damaged("it makes a dictionary of what are no pairs")
  return value[0], value[1]


def _encode(text: Any = b"", encoding: Any = "utf-8") -> bytes:
  """Bytes, as Python 3 writes them for the older protocols."""
  if isinstance(text, bytes):
    return text
  known = ("latin1", "latin-1", "utf-8")
  if not isinstance(text, str) or encoding not in known:
    raise Damaged("it encodes what is no text")
  return text.encode(encoding)


# Opcodes by what they do; the others are methods of the machine.
_VALUES = frozenset(
  "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING"
  " BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE"
  " BINUNICODE BINUNICODE8 FLOAT BINFLOAT".split()
)
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
  "NONE": lambda: None,
  "NEWTRUE": lambda: True,
  "NEWFALSE": lambda: False,
  "EMPTY_TUPLE": tuple,
  "EMPTY_LIST": list,
  "EMPTY_DICT": dict,
  "EMPTY_SET": list,
}
_MEMOS = frozenset(["PUT", "BINPUT", "LONG_BINPUT"])
_RECALLS = frozenset(["GET", "BINGET", "LONG_BINGET"])
_NOTHING = frozenset(["PROTO", "FRAME", "READONLY_BUFFER"])
