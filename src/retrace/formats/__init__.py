"""Labels on disk: what people draw or export goes in, what Retrace carried comes out.

`davis_png` masks and part maps, `keypoints`, `boxes`, `textures`; `labels` tells them apart and finds their frames.
Coordinates are (x, y) pixels with the centre of the first pixel at (0.5, 0.5), in the files as in the code.
"""
