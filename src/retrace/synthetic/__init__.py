"""Procedural moving scenes with exact masks, keypoints, boxes, flow and occlusion.

`render(seed)` gives a scene with its truth; `SyntheticSource` an endless stream of training clips.
"""

from retrace.synthetic.scene import Scene, render
from retrace.synthetic.source import SyntheticSource
from retrace.synthetic.world import SceneConfig

__all__ = ["Scene", "SceneConfig", "SyntheticSource", "render"]
