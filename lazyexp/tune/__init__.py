"""Searches under equal trials: every rule gets the same number of trials, the same ranges and the same start."""
