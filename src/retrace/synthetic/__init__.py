"""Procedural moving scenes with exact masks, keypoints, boxes, flow and occlusion.

`render(seed)` gives a scene with its truth; `SyntheticSource` an endless stream of training clips, which `KeptClips`
keeps for runs that draw the same ones.
"""

from retrace.synthetic.kept import KeptClips
from retrace.synthetic.scene import Scene, render
from retrace.synthetic.source import SyntheticSource
from retrace.synthetic.world import SceneConfig

__all__ = ["KeptClips", "Scene", "SceneConfig", "SyntheticSource", "render"]
