"""An encoder as data: what a recipe says and what a checkpoint's card carries."""

from dataclasses import dataclass

from retrace.encoders.resnet import DEPTHS, ResNet


@dataclass(frozen=True)
class EncoderConfig:
    """A residual encoder.

    Attributes:
        architecture: "resnet18" or "resnet50".
        width: factor on all channels; 1.0 is the published network.
        strides: of layer1 ... layer4.
        dilations: of layer1 ... layer4.
        cut: layer after which the map is taken, "layer1" ... "layer4".
        padding_mode: "zeros", "reflect", "replicate" or "none".
        stem_pool: False leaves out the stem's max-pool.
    """

    architecture: str = "resnet18"
    width: float = 1.0
    strides: tuple[int, int, int, int] = (1, 2, 1, 1)
    dilations: tuple[int, int, int, int] = (1, 1, 1, 1)
    cut: str = "layer3"
    padding_mode: str = "zeros"
    stem_pool: bool = True

    def build(self) -> ResNet:
        """A freshly initialised encoder.

        Errors: ValueError for an architecture, cut or padding mode that does not exist.
        """
        if self.architecture not in DEPTHS:
            raise ValueError(f"architecture {self.architecture!r}; expected one of {', '.join(DEPTHS)}")
        block, depths = DEPTHS[self.architecture]
        return ResNet(
            block,
            depths,
            strides=self.strides,
            dilations=self.dilations,
            cut=self.cut,
            padding_mode=self.padding_mode,
            width=self.width,
            stem_pool=self.stem_pool,
        )
