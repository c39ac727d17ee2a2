"""Which structures a model can tell apart, measured and compared with the theory.

A model is wrapped as a :class:`~eqplugin.bench.expressivity.subject.Subject` (float64, NequIP or
MACE, ours or stock), asked about the pairs of :mod:`~eqplugin.bench.expressivity.suites`, and the
answers stand beside what :mod:`~eqplugin.bench.expressivity.rules` predicts from its architecture.
"""

from __future__ import annotations
