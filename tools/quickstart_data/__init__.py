"""Recipes of the data in ``examples/data``; ``tools/make_data.py`` makes and verifies them."""
