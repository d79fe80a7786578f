"""One paper, one file: configuration, views and loss. A method returns losses and does nothing else."""
