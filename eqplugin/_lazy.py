"""Names that packages export and import on first use; their types are in ``__init__.pyi``."""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_exports(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """A package's ``__getattr__``, ``__dir__`` and ``__all__``.

    ``nequip-package`` traces every import statement, those in functions and for type checkers too;
    it does not see these.

    Args:
        package: its ``__name__``.
        homes: module inside the package -> names that it lends, by spaces.
    """
    modules = {name: home for home, names in homes.items() for name in names.split()}

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    names = sorted(modules)
    return get, lambda: names, names
