"""What can be set: the settings, their bounds, import paths of custom parts, Hydra, and a run's identity."""
