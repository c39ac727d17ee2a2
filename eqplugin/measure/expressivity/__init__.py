"""What an architecture can and cannot tell apart, tested on pairs of structures.

A model is wrapped as a :class:`~eqplugin.measure.expressivity.subject.Subject` (float64, NequIP or
MACE, ours or stock) and asked about the pairs of :mod:`~eqplugin.measure.expressivity.suites`; the
answers stand beside what :mod:`~eqplugin.measure.expressivity.rules` predicts from its layers.
"""
