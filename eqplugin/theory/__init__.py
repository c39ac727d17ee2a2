"""What a model can and cannot see: test structures and diagnostics, never in the energy path."""
