"""Pictures: overlays, affinity maps, PCA of features, curves. Arrays in, images and figures out."""
