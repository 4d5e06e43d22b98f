"""A run's folder on disk: writing, reading, columns, provenance, trackers."""
