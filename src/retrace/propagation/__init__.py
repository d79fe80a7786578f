"""Labels ride on walks: engine, context, label codecs and the published protocols."""
