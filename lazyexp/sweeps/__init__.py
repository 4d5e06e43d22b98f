"""Sweeps from the command line: their runs, and what a command would do."""
