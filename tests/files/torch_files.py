"""Writes files as `torch.save` does, and pickles of any names. No torch."""

import io
import pickle
import struct
import sys
import zipfile

import numpy as np

STORAGES = {
  "float64": "DoubleStorage",
  "float32": "FloatStorage",
  "float16": "HalfStorage",
  "int64": "LongStorage",
  "int32": "IntStorage",
  "uint8": "ByteStorage",
  "bool": "BoolStorage",
}


class Global:
  """A name of somebody's module."""

  def __init__(self, module, name):
    self.module, self.name = module, name

  def __call__(self):
    raise AssertionError("only pickled")


class Call:
  """What a pickle makes by a call, and what it puts into it."""

  def __init__(self, module, name, *args, state=None, items=None, entries=None):
    self.of, self.args, self.state = Global(module, name), args, state
    self.items, self.entries = items, entries


class New(Call):
  """An object of a class as protocol 2 and later write it."""


class Storage:
  """Numbers of a tensor; `count` and `kind` may lie."""

  def __init__(self, array, count=None, kind=None):
    self.array = np.ascontiguousarray(array).reshape(-1)
    self.count = self.array.size if count is None else count
    self.kind = kind or STORAGES[str(self.array.dtype)]


def tensor(array, storage=None, offset=0, size=None, stride=None):
  """A tensor as torch pickles it; what is given may lie."""
  array = np.ascontiguousarray(array) if np.ndim(array) else np.array(array)
  steps = tuple(s // array.itemsize for s in array.strides)
  return Call(
    "torch._utils",
    "_rebuild_tensor_v2",
    storage or Storage(array),
    offset,
    tuple(array.shape) if size is None else size,
    steps if stride is None else stride,
    False,
    Call("collections", "OrderedDict"),
  )


def tensors(state):
  """A state dict of arrays as one of torch."""
  entries = [(key, tensor(value)) for key, value in state.items()]
  return Call(
    "collections",
    "OrderedDict",
    entries=entries,
    state={"_metadata": Call("collections", "OrderedDict")},
  )


class Pickler(pickle._Pickler):
  """Writes `Global`, `Call`, `New` and, as persistent ids, `Storage`."""

  def __init__(self, file, protocol, storages, *more):
    super().__init__(file, protocol)
    self._storages, self._more = storages, more

  def reducer_override(self, obj):
    if isinstance(obj, Global):
      return obj.name
    if isinstance(obj, Call):
      of, args = obj.of, obj.args
      if isinstance(obj, New) and self.proto < 2:
        base = Global("builtins", "object")
        of, args = Global("copyreg", "_reconstructor"), (obj.of, base, None)
      items = None if obj.items is None else iter(obj.items)
      entries = None if obj.entries is None else iter(obj.entries)
      return of, args, obj.state, items, entries
    return NotImplemented

  def save_reduce(self, func, args, *rest, obj=None, **more):
    if isinstance(obj, New) and self.proto >= 2:
      self.save(func)
      self.save(args)
      self.write(pickle.NEWOBJ)
      self.memoize(obj)
      state, items, entries = rest
      if items is not None:
        self._batch_appends(items, obj)
      if entries is not None:
        self._batch_setitems(entries, obj)
      if state is not None:
        self.save(state)
        self.write(pickle.BUILD)
      return
    super().save_reduce(func, args, *rest, obj=obj, **more)

  def _batch_appends(self, items, obj=None):
    more = (obj,) if sys.version_info >= (3, 14) else ()
    super()._batch_appends(items, *more)

  def _batch_setitems(self, items, obj=None):
    more = (obj,) if sys.version_info >= (3, 14) else ()
    super()._batch_setitems(items, *more)

  def save_global(self, obj, name=None):
    if not isinstance(obj, Global):
      super().save_global(obj, name)
    elif self.proto >= 4:
      self.save(obj.module)
      self.save(obj.name)
      self.write(pickle.STACK_GLOBAL)
      self.memoize(obj)
    else:
      module = obj.module
      if self.proto < 3:
        module = {"builtins": "__builtin__", "copyreg": "copy_reg"}.get(
          module, module
        )
      self.write(pickle.GLOBAL + f"{module}\n{obj.name}\n".encode())
      self.memoize(obj)

  def persistent_id(self, obj):
    if not isinstance(obj, Storage):
      return None
    key = str(self._storages.setdefault(id(obj), (len(self._storages), obj))[0])
    kind = Global("torch", obj.kind)
    if isinstance(obj.kind, Global):
      kind = obj.kind
    return "storage", kind, key, "cpu", obj.count, *self._more


def pickled(value, protocol=2, storages=None, *more):
  """The bytes of a pickle; `more` ends the ids of storages."""
  file = io.BytesIO()
  storages = {} if storages is None else storages
  Pickler(file, protocol, storages, *more).dump(value)
  return file.getvalue()


def write_zip(path, value, protocol=2, more=(), packing=zipfile.ZIP_STORED):
  """torch's layout since 1.6.

  Args:
    path: of the file.
    value: what it holds.
    protocol: of the pickle.
    more: (name, content) of further members, below the top folder.
    packing: of the members.
  """
  storages = {}
  content = value
  if not isinstance(value, bytes):
    content = pickled(value, protocol, storages)
  with zipfile.ZipFile(path, "w", packing) as archive:
    archive.writestr("archive/data.pkl", content)
    archive.writestr("archive/byteorder", "little")
    for key, storage in storages.values():
      archive.writestr(f"archive/data/{key}", storage.array.tobytes())
    archive.writestr("archive/version", "3\n")
    for name, content in more:
      archive.writestr(f"archive/{name}", content)
  return path


def write_old(path, value, protocol=2):
  """torch's layout before 1.6."""
  storages = {}
  about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
  content = value
  if not isinstance(value, bytes):
    content = pickled(value, protocol, storages, None)
  parts = [
    pickle.dumps(0x1950A86A20F9469CFC6C, protocol),
    pickle.dumps(1001, protocol),
    pickle.dumps(about, protocol),
    content,
    pickle.dumps([str(key) for key, _ in storages.values()], protocol),
  ]
  for _, storage in storages.values():
    parts.append(struct.pack("<q", storage.count) + storage.array.tobytes())
  path.write_bytes(b"".join(parts))
  return path
