"""Training: the Lightning module, the loader, checkpoints and resume, adaptation to one video."""
