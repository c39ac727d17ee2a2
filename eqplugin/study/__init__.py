"""Studies: which L, how many hops, which stack, at what cost, on the user's own data."""
