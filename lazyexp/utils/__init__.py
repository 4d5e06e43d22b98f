"""Helpers without knowledge of runs: terminal, signals, seeding, memory, files, workers."""
