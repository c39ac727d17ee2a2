"""MACE in one environment with NequIP: ``import eqplugin.mace`` before building or loading a model.

The import repairs MACE for e3nn 0.6 (see `eqplugin.mace.compat`); it does not touch NequIP.
"""

from __future__ import annotations

from eqplugin.mace import compat

compat.apply()
