"""Molecular dynamics through ASE's integrators, and the health checks that go with it."""
