"""Reading a pickle that may be hostile: nothing in it is imported or called, names become records of what they were.

Used for one purpose, importing a torch.distributed.checkpoint folder, whose format is pickles. A pickle is a program for a
stack machine; all it can do to the outside is what `find_class` gives it, and that gives it the classes of this file only.
"""

from __future__ import annotations

import io
import pickle  # the one place: see above
import pickletools
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from sternpost_checkpoint.errors import FormatError
from sternpost_checkpoint.format.dtypes import ITEM_BYTES

MAX_BYTES = 256 * 2**20
MAX_OPERATIONS = 20_000_000

_DCP = "torch.distributed.checkpoint."
_RECORDS = {
    (f"{_DCP}metadata", "Metadata"),
    (f"{_DCP}metadata", "TensorStorageMetadata"),
    (f"{_DCP}metadata", "BytesStorageMetadata"),
    (f"{_DCP}metadata", "ChunkStorageMetadata"),
    (f"{_DCP}metadata", "TensorProperties"),
    (f"{_DCP}metadata", "MetadataIndex"),
    (f"{_DCP}metadata", "StorageMeta"),
    (f"{_DCP}metadata", "_MEM_FORMAT_ENCODING"),
    (f"{_DCP}filesystem", "_StorageInfo"),
    ("pathlib", "PosixPath"),
    ("pathlib", "Path"),
    ("pathlib", "PurePosixPath"),
    ("torch.serialization", "_get_layout"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "device"),
}
_STORAGES = {
    "UntypedStorage": "uint8",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
_FORBIDDEN = {"INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}


class Record:
    """An object of a foreign class, or a call of a foreign function: its name, what it was made from, and its state."""

    name: ClassVar[str] = ""
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *arguments: Any) -> Record:
        """Keep what the object was made from."""
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __hash__(self) -> int:
        # As torch's MetadataIndex, which is a key: by what it names.
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._key() == other._key()

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def get(self, field: str) -> Any:
        """A field of a dataclass's state; None when it is not there."""
        return self.state.get(field) if isinstance(self.state, dict) else None

    def _key(self) -> tuple[Any, ...]:
        offset = self.get("offset")
        return (self.name, str(self.get("fqn")), offset if isinstance(offset, tuple) else None)


class Dtype(Record):
    """A torch dtype, by name."""

    name = "torch.dtype"

    @property
    def dtype(self) -> str:
        """Its name without `torch.`."""
        return str(self.arguments[0])


class Storage(Record):
    """The type of a torch storage; `dtype` of its elements."""

    dtype: ClassVar[str] = ""


class _Sealed:
    """Something callable that a pickle can call and not change."""

    __slots__ = ("_do",)
    _do: Callable[..., Any]

    def __init__(self, do: Callable[..., Any]) -> None:
        object.__setattr__(self, "_do", do)

    def __call__(self, *arguments: Any) -> Any:
        return self._do(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise pickle.UnpicklingError("it tries to change what it is given")

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("it tries to change what it is given")


def _size(items: Any = ()) -> tuple[Any, ...]:
    if not isinstance(items, tuple | list):
        raise pickle.UnpicklingError("a torch.Size of something else than a tuple")
    return tuple(items)


def _mapping(items: Any = ()) -> dict[Any, Any]:
    if items != () and not isinstance(items, list):
        raise pickle.UnpicklingError("an OrderedDict of something else than a list")
    return dict(items)


def _members(items: Any = ()) -> list[Any]:
    if not isinstance(items, list | tuple):
        raise pickle.UnpicklingError("a set of something else than a list")
    return list(items)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(io.BytesIO(data))
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _RECORDS:
            return type(name, (Record,), {"name": f"{module}.{name}", "__module__": __name__})
        if module == "torch" and name in ITEM_BYTES:
            return Dtype(name)
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return type(name, (Storage,), {"name": f"torch.{name}", "dtype": _STORAGES[name], "__module__": __name__})
        if (module, name) in (("torch", "Size"), ("torch.Size", "__new__")):
            return _Sealed(_size)
        if (module, name) == ("collections", "OrderedDict"):
            return _Sealed(_mapping)
        if (module, name) in (("builtins", "set"), ("__builtin__", "set")):
            return _Sealed(_members)
        raise FormatError(
            f"{self._where}: it names {f'{module}.{name}'[:200]!r}, which a checkpoint of torch does not need"
        )

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise FormatError(f"{self._where}: a storage is malformed")
        return pid


def load(data: bytes, where: str) -> Any:
    """The objects of a pickle, foreign ones as Records. Raises FormatError for anything that it should not hold."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"{where} has {len(data)} bytes, over the limit of {MAX_BYTES} for a pickle")
    _scan(data, where)
    try:
        return _Unpickler(data, where).load()
    except FormatError:
        raise
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise FormatError(f"{where} is not a pickle that torch writes: {error or type(error).__name__}") from error


def _scan(data: bytes, where: str) -> None:
    """Look through the operations before they run: how many, which, and that none reserves memory beyond its own size."""
    try:
        problem = _first_problem(data)
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        raise FormatError(f"{where} is not a pickle: {error}") from error
    if problem:
        raise FormatError(f"{where}: {problem}")


def _first_problem(data: bytes) -> str:
    for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
        if count > MAX_OPERATIONS or operation.name in _FORBIDDEN:
            return f"the operation {operation.name} at {count} is not one that torch writes"
        # The machine's memory is an array: a far index would make it huge.
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= count:
            return f"it remembers something at {argument}, which is too far"
    return ""
