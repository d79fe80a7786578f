"""Encoders: from images to feature maps; their weights, and the one that ships with the package."""

from retrace.encoders.config import EncoderConfig
from retrace.encoders.model import Model
from retrace.encoders.weights import begin, from_state_dict, load, save, with_colour

__all__ = ["EncoderConfig", "Model", "begin", "from_state_dict", "load", "save", "with_colour"]
