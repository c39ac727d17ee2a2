"""Reading a pickle without running it: every class and function in it becomes a name.

The stand-ins remember what was asked of them, so that a policy (:mod:`eqplugin.modelfile.pickles`)
can say no at the very step where ``pickle`` would import a name, call it, or set a state.
"""

from __future__ import annotations

import _compat_pickle
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import IO, Any


class Refused(Exception):
    """What in a pickle no honest model file does; the message ends a sentence about the file."""


class Policy:
    """What a pickle may do; this one allows everything, and nothing of it happens."""

    def name(self, name: str) -> None:
        """The pickle imports ``module.name``."""

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """The pickle calls it; what is returned takes the place of the result."""
        return Instance(NAMES.stand_in(name, self), arguments)

    def create(self, name: str, arguments: tuple[Any, ...]) -> None:
        """The pickle makes an object of a class, without its ``__init__``."""

    def state(self, name: str, state: Any) -> None:
        """The pickle sets the state of an object of a class."""


class Name(type):
    """The metaclass of stand-ins: a stand-in is called where the pickle calls its original."""

    name: str
    policy: Policy

    def __call__(cls, *arguments: Any) -> Any:
        """REDUCE: the original would be called."""
        return cls.policy.call(cls.name, arguments)

    def __repr__(cls) -> str:
        return cls.name


class _Object(metaclass=Name):
    """An object that a pickle makes: its class by name, its arguments, state and contents."""

    arguments: tuple[Any, ...]
    state: Any
    items: list[Any]
    entries: dict[Any, Any]

    def __new__(cls, *arguments: Any, **named: Any) -> _Object:
        """NEWOBJ: an object without its ``__init__``."""
        cls.policy.create(cls.name, arguments)
        return Instance(cls, arguments)

    def __setstate__(self, state: Any) -> None:
        type(self).policy.state(type(self).name, state)
        self.state = state

    def append(self, item: Any) -> None:
        """APPEND to a list of the pickle's own class."""
        self.items.append(item)

    def extend(self, items: Iterable[Any]) -> None:
        """APPENDS."""
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def __repr__(self) -> str:
        return f"<{type(self).name}>"

    __hash__ = object.__hash__


def Instance(cls: Name, arguments: tuple[Any, ...]) -> Any:
    """An object of a stand-in."""
    made: Any = object.__new__(cls)  # type: ignore[arg-type]
    made.arguments, made.state, made.items, made.entries = arguments, None, [], {}
    return made


class _Names:
    def stand_in(self, name: str, policy: Policy) -> Name:
        return Name(name.rpartition(".")[2] or name, (_Object,), {"name": name, "policy": policy})


NAMES = _Names()


def name_of(value: Any) -> str | None:
    """``module.name`` of a stand-in, or of the class of an object; None for plain values."""
    if isinstance(value, Name):
        return value.name
    return type(value).name if isinstance(type(value), Name) else None


def is_object(value: Any) -> bool:
    """Whether a value is an object that the pickle made."""
    return isinstance(type(value), Name)


class Mirror(pickle.Unpickler):
    """Reads one pickle.

    Args:
        file: where it stands.
        policy: of its names and calls.
        storage: returns what a reference to a tensor's storage stands for; None: itself.
        real: objects to use in place of stand-ins, by name.
    """

    def __init__(
        self,
        file: IO[bytes],
        policy: Policy,
        storage: Callable[[tuple[Any, ...]], Any] | None = None,
        real: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(file)
        self._policy, self._storage, self._real = policy, storage, real or {}
        self._known: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a class or function."""
        full = present_name(module, name)
        if full not in self._known:
            self._policy.name(full)
            self._known[full] = self._real.get(full) or NAMES.stand_in(full, self._policy)
        return self._known[full]

    def persistent_load(self, reference: Any) -> Any:
        """A tensor's storage."""
        return reference if self._storage is None else self._storage(reference)


def present_name(module: str, name: str) -> str:
    """``module.name`` as Python 3 knows it; pickles of torch keep the names of Python 2."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        module, name = _compat_pickle.NAME_MAPPING[module, name]
    else:
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
    return f"{module}.{name}"


# plain containers are made as they are: what they hold is inert
PLAIN: dict[str, Callable[..., Any]] = {
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.list": list,
    "builtins.tuple": tuple,
    "builtins.dict": dict,
    "builtins.slice": slice,
    "builtins.complex": complex,
    "builtins.bytearray": bytearray,
    "builtins.range": range,
    "collections.OrderedDict": OrderedDict,
}
