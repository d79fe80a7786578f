"""Retrace learns visual correspondence from raw video and carries any label from one frame to all the others."""

__version__ = "0.1.0"
