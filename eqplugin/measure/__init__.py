"""Measurements: force errors, speed, and the plots that show them."""
