"""Video in and out: decode, encode, which frames (sampling), what is done to them (transforms), clips (loader)."""
