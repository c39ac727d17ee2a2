"""Is it a potential? Symmetries, derivatives, cutoff, extensivity, pairs, short dynamics."""
