"""Tables, speedups with intervals, and figures from runs on disk. Nothing here imports torch."""
