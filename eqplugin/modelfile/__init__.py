"""Model files before a stack sees them: whole, of whom, and what they would run when opened."""
