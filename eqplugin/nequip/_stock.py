"""Finding NequIP's own modules in a model, whether built here or loaded from a package.

``nequip-package`` carries its own copy of NequIP: the modules of a packaged model are instances of
other classes of the same names, and ``isinstance`` does not know them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch


def is_stock(module: torch.nn.Module, cls: type) -> bool:
    """Whether `module` is a NequIP `cls`, of the installed NequIP or of a package's."""
    return isinstance(module, cls) or any(
        base.__name__ == cls.__name__ and base.__module__.endswith(f">.{cls.__module__}")
        for base in type(module).__mro__
    )


def find_stock(model: torch.nn.Module, cls: type) -> Iterator[torch.nn.Module]:
    """All NequIP `cls` modules of a model."""
    return (module for module in model.modules() if is_stock(module, cls))


def replace_stock(
    model: torch.nn.Module, cls: type, factory: Callable[[torch.nn.Module], torch.nn.Module]
) -> torch.nn.Module:
    """Replace in place every NequIP `cls` in `model` by ``factory(old)``; returns `model`."""
    for name, child in list(model.named_children()):
        if is_stock(child, cls):
            model._modules[name] = factory(child)
        else:
            replace_stock(child, cls, factory)
    return model
