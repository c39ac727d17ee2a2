"""`make demo`: train, compare, run MD and report, in about ten minutes on two cores."""
