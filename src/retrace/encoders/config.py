"""An encoder as data: what a recipe says and what a checkpoint's card carries."""

from dataclasses import dataclass, replace

from retrace.encoders.resnet import DEPTHS, LAYERS, ResNet, check_settings


@dataclass(frozen=True)
class EncoderConfig:
    """A residual encoder.

    Attributes:
        architecture: "resnet18", "resnet34", "resnet50" or "resnet101".
        width: factor on all channels; 1.0 is the published network.
        strides: of layer1 ... layer4.
        dilations: of layer1 ... layer4.
        dilated: "all" 3x3 convolutions of a layer, or as VFS's tracker has it "released" (see `ResNet`).
        cut: layer after which the map is taken, "layer1" ... "layer4".
        padding_mode: "zeros", "reflect", "replicate" or "none".
        stem_pool: False leaves out the stem's pool.
        pool: of the stem, "max" (all published networks but one) or "mean" (Spatial-then-Temporal at stride 4).
        reduction: channels of a 1x1 convolution and ReLU after the last layer (TimeCycle: 512); 0 has none.
        zero_init_residual: every block begins as its shortcut: the weights of its last BatchNorm start at 0 (VFS).
    """

    architecture: str = "resnet18"
    width: float = 1.0
    strides: tuple[int, int, int, int] = (1, 2, 1, 1)
    dilations: tuple[int, int, int, int] = (1, 1, 1, 1)
    dilated: str = "all"
    cut: str = "layer3"
    padding_mode: str = "zeros"
    stem_pool: bool = True
    pool: str = "max"
    reduction: int = 0
    zero_init_residual: bool = False

    def ending(self, cut: str | None, strides: tuple[int, int, int, int] | None = None) -> "EncoderConfig":
        """The same encoder, ending after layer `cut`, without what stood on a later one, with other strides.

        None changes nothing.
        """
        shorter = self if cut is None or cut == self.cut else replace(self, cut=cut, reduction=0)
        return shorter if strides is None else replace(shorter, strides=strides)

    def build(self) -> ResNet:
        """A freshly initialised encoder.

        Errors: ValueError for an architecture, cut, padding mode, pool or way to dilate that does not exist, or a
            negative reduction.
        """
        self.check()
        block, depths = DEPTHS[self.architecture]
        return ResNet(
            block,
            depths,
            strides=self.strides,
            dilations=self.dilations,
            dilated=self.dilated,
            cut=self.cut,
            padding_mode=self.padding_mode,
            width=self.width,
            stem_pool=self.stem_pool,
            pool=self.pool,
            reduction=self.reduction,
            zero_init_residual=self.zero_init_residual,
        )

    def check(self) -> None:
        """Refuse what cannot be built, without building it.

        Errors: ValueError naming the setting and what it may be.
        """
        if self.architecture not in DEPTHS:
            raise ValueError(f"architecture {self.architecture!r}; expected one of {', '.join(DEPTHS)}")
        if round(64 * self.width) < 1:
            raise ValueError(f"width {self.width}; expected a factor that leaves a channel")
        for name, values in (("strides", self.strides), ("dilations", self.dilations)):
            if len(values) != len(LAYERS) or min(values) < 1:
                raise ValueError(f"{name} {values}; expected {len(LAYERS)} numbers of at least 1")
        check_settings(
            cut=self.cut,
            padding_mode=self.padding_mode,
            pool=self.pool,
            dilated=self.dilated,
            reduction=self.reduction,
        )
