"""The tables of docs/results/, one module per kind of comparison. Used by scripts/collect.py."""
