"""Following boxes through a video."""
