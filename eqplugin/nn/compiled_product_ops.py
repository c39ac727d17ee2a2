"""The old place of the compiled operators, which compiled packages (``.nequip.pt2``) name."""

from eqplugin.nn.product.operators import LIBRARY_PATH

__all__ = ["LIBRARY_PATH"]

if __name__ == "__main__":
    print(LIBRARY_PATH)
