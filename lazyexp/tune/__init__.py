"""Hyperparameter searches under equal trials: each rule gets the same number of trials, ranges and first trials."""
