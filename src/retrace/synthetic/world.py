"""What a scene is made of: a background, layers of objects, a camera and the light, all functions of time.

World coordinates are in short sides of the frame, origin at the centre of the frame, x right, y down.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from retrace.errors import UsageError
from retrace.synthetic import shapes, textures
from retrace.synthetic.draws import Draw
from retrace.synthetic.motion import Affine, Bend, Pose, Spin, Wave, similarity, travel

_JOINT = -0.8
"""Where on a limb's own x axis the joint is."""


@dataclass(frozen=True)
class SceneConfig:
    """What scenes are drawn from.

    The strengths are factors on the default variety: 0 turns a thing off, 1 is the default.

    Attributes:
        height: of the frames, pixels, at least 16.
        width: of the frames, pixels, at least 16.
        num_frames: of `render`, at least 1.
        num_objects: range, both ends included; at most 255.
        keypoints_per_object: marked surface points on each object.
        object_size: range of an object's radius, in short sides of the frame.
        speed: range of a scene's pace, short sides of the frame per frame.
        limbs: share of objects that are articulated.
        camouflage: share of objects with nearly the colours of the background.
        camera: strength of pan, zoom, rotation and shake.
        parallax: strength of the difference in camera motion between near and far.
        deformation: strength of bending.
        lighting: strength of changes of gain, colour, gamma and of the moving shade.
        shadows: strength of cast shadows.
        blur: strength of defocus.
        motion_blur: strength of the blur of a shutter that stays open.
        noise: strength of sensor noise.
        detail: strength of the textures' grain; 0 also leaves only the smoothest texture.
    """

    height: int = 256
    width: int = 384
    num_frames: int = 48
    num_objects: tuple[int, int] = (2, 5)
    keypoints_per_object: int = 8
    object_size: tuple[float, float] = (0.13, 0.36)
    speed: tuple[float, float] = (0.005, 0.05)
    limbs: float = 0.35
    camouflage: float = 0.35
    camera: float = 1.0
    parallax: float = 1.0
    deformation: float = 1.0
    lighting: float = 1.0
    shadows: float = 1.0
    blur: float = 1.0
    motion_blur: float = 1.0
    noise: float = 1.0
    detail: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn with a sentence."""
        if self.height < 16 or self.width < 16:
            raise UsageError(
                f"A generated scene of {self.height} x {self.width} pixels was asked for; height and width must be "
                "at least 16."
            )
        if self.num_frames < 1:
            raise UsageError(f"num_frames is {self.num_frames}; a scene has at least 1 frame.")
        if self.keypoints_per_object < 0:
            raise UsageError(f"keypoints_per_object is {self.keypoints_per_object}; give 0 or more.")
        low, high = self.num_objects
        if not 0 <= low <= high <= 255:
            raise UsageError(
                f"num_objects is {self.num_objects}; give (fewest, most) between 0 and 255, the most that an 8-bit "
                "mask can number."
            )
        for name in ("object_size", "speed"):
            smallest, largest = getattr(self, name)
            if not 0 < smallest <= largest:
                raise UsageError(f"{name} is {(smallest, largest)}; give (smallest, largest), both above 0.")
        for name in ("limbs", "camouflage"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; give a share between 0 and 1.")
        for name in (
            "camera",
            "parallax",
            "deformation",
            "lighting",
            "shadows",
            "blur",
            "motion_blur",
            "noise",
            "detail",
        ):
            if not 0 <= getattr(self, name) <= 3:
                raise UsageError(f"{name} is {getattr(self, name)}; give a strength between 0 (off) and 3.")

    @property
    def short(self) -> int:
        """The short side, pixels."""
        return min(self.height, self.width)


@dataclass(frozen=True)
class Camera:
    """Pan in world units, roll in radians, zoom as a natural logarithm."""

    x: Wave
    y: Wave
    roll: Wave
    zoom: Wave
    height: int
    width: int

    def __call__(self, time: float, nearness: float) -> Affine:
        """World -> pixels for things at this nearness (1: the plane of reference; more is nearer)."""
        short = min(self.height, self.width)
        view = similarity(self.roll(time), short * math.exp(self.zoom(time)), self.width / 2, self.height / 2)
        return view.after(Affine(e=-self.x(time) * nearness, f=-self.y(time) * nearness))


@dataclass(frozen=True)
class Bending:
    """The non-rigid motion of an object: amplitudes that swing about a resting bend, phases that may travel."""

    a: Wave
    b: Wave
    k: float
    m: float
    phase_a: Spin
    phase_b: Spin

    def __call__(self, time: float) -> Bend:
        """The bend at a time in frames."""
        return Bend(self.a(time), self.k, self.phase_a(time), self.b(time), self.m, self.phase_b(time))


@dataclass(frozen=True)
class Body:
    """How an object moves: place and radius in world units."""

    x: Wave
    y: Wave
    angle: Spin
    size: Wave
    aspect: Wave
    radius: float
    bending: Bending
    nearness: float

    def outer(self, time: float) -> Affine:
        """Bent object space -> world."""
        stretch = math.exp(self.aspect(time))
        place = similarity(
            self.angle(time), self.radius * math.exp(self.size(time)), self.x(time), self.y(time)
        )
        return place.after(Affine(a=stretch, d=1 / stretch))


@dataclass(frozen=True)
class Limb:
    """A part that turns about a joint of its body; size and joint in units of the body's radius."""

    angle: Wave
    size: float
    joint: tuple[float, float]

    def inner(self, time: float) -> Affine:
        """The limb's own space -> the body's space."""
        turn = similarity(self.angle(time), self.size)
        return Affine(
            turn.a, turn.b, turn.c, turn.d, self.joint[0] - turn.a * _JOINT, self.joint[1] - turn.c * _JOINT
        )


@dataclass(frozen=True)
class Layer:
    """One rigid or bending piece, in front of the layers before it.

    Attributes:
        object_id: 1 .. N; the parts of an articulated object share one.
        tile: (4, n, n) RGB and outline field over [-shapes.EXTENT, shapes.EXTENT]^2.
        body: How it moves.
        limb: How it moves on its body, or None for the body itself.
    """

    object_id: int
    tile: Tensor
    body: Body
    limb: Limb | None


@dataclass(frozen=True)
class Background:
    """(3, n, m) RGB over [-half_x, half_x] x [-half_y, half_y] of the world, mirrored beyond."""

    tile: Tensor
    half_x: float
    half_y: float
    nearness: float


@dataclass(frozen=True)
class Light:
    """Lighting and lens, all functions of time.

    Attributes:
        gains: of red, green, blue, natural logarithms.
        gamma: natural logarithm of the exponent.
        shade: strength of the moving shade, 0 .. 1.
        shade_angle: its direction, radians.
        shade_phase: its place, radians.
        shade_rate: its waves per short side.
        shadow: darkness of cast shadows, 0 .. 1.
        shadow_offset: where they fall, world units.
        defocus: standard deviation of the defocus, pixels.
        shutter: how long it stays open, frames.
        noise: standard deviation of the sensor noise, 0 .. 1 is black to white.
        coarse_noise: whether the noise has grains of two pixels.
    """

    gains: tuple[Wave, Wave, Wave]
    gamma: Wave
    shade: float
    shade_angle: Spin
    shade_phase: Spin
    shade_rate: float
    shadow: float
    shadow_offset: tuple[float, float]
    defocus: float
    shutter: float
    noise: float
    coarse_noise: bool


@dataclass(frozen=True)
class World:
    """A whole scene before it is looked at; layers from back to front."""

    config: SceneConfig
    camera: Camera
    background: Background
    layers: tuple[Layer, ...]
    num_objects: int
    light: Light

    def pose(self, layer: int, time: float) -> Pose:
        """Where a layer is at a time in frames; -1 is the background."""
        if layer < 0:
            return Pose(Affine(), Bend(), self.camera(time, self.background.nearness))
        piece = self.layers[layer]
        outer = self.camera(time, piece.body.nearness).after(piece.body.outer(time))
        inner = Affine() if piece.limb is None else piece.limb.inner(time)
        return Pose(inner, piece.body.bending(time), outer)


def build(config: SceneConfig, generator: torch.Generator, device: torch.device) -> World:
    """Draw a world.

    Args:
        config: What it is drawn from.
        generator: On the CPU; the world is the same for every device.
        device: Where the tiles are kept.
    """
    draw = Draw(generator)
    pace = draw.log_uniform(*config.speed)
    camera = _camera(draw, config, pace)
    colours = textures.palette(draw)
    background = _background(draw, config, colours, device)
    count = draw.integer(*config.num_objects)
    layers: list[Layer] = []
    for number in range(1, count + 1):
        nearness = 1 + config.parallax * draw.uniform(0, 0.15) * (number - 1)
        body = _body(draw, config, pace, nearness)
        layers += _object(draw, config, pace, number, body, colours, device)
    return World(config, camera, background, tuple(layers), count, _light(draw, config, pace))


def _camera(draw: Draw, config: SceneConfig, pace: float) -> Camera:
    strength = config.camera * (0.0 if draw.chance(0.15) else draw.uniform(0.2, 1))
    speed = 0.8 * pace * strength
    x = travel(draw, speed * draw.uniform(0.4, 1), (0.1, 0.5))
    y = travel(draw, speed * draw.uniform(0, 0.6), (0.05, 0.25))
    roll = travel(draw, 0.6 * speed * float(draw.chance(0.6)), (0.02, 0.2))
    zoom = travel(draw, 0.6 * speed * float(draw.chance(0.7)), (0.03, 0.22))
    shake = config.camera * (draw.uniform(0.0005, 0.004) if draw.chance(0.35) else 0.0)
    # Two quick sines that do not repeat together: a hand that holds a camera.
    tremble = [tuple((shake, draw.uniform(0.7, 2.4), draw.angle()) for _ in range(2)) for _ in range(2)]
    return Camera(
        Wave(x.offset, x.parts + tremble[0]),
        Wave(y.offset, y.parts + tremble[1]),
        roll,
        zoom,
        config.height,
        config.width,
    )


def _background(draw: Draw, config: SceneConfig, colours: Tensor, device: torch.device) -> Background:
    short = config.short
    margin = 1.7
    # One texel a pixel would be sharper than most footage.
    size = (math.ceil(config.height * margin * 0.9), math.ceil(config.width * margin * 0.9))
    tile = textures.texture(draw, size, colours, (5, 22), device, config.detail)
    if draw.chance(0.5):  # a sky, a far wall: another material beyond a wavy line
        far = textures.texture(draw, size, textures.palette(draw), (4, 16), device, config.detail)
        line = torch.linspace(-1, 1, size[0], device=device)[:, None] - draw.uniform(-0.4, 0.3)
        line = line + draw.uniform(0.02, 0.15) * textures.noise(draw, size, draw.uniform(2, 5), 3, device)
        sharpness = draw.log_uniform(6, 60) if config.detail > 0 else 5.0
        tile = torch.lerp(far, tile, torch.sigmoid(sharpness * line)[None])
    return Background(
        tile,
        config.width * margin / 2 / short,
        config.height * margin / 2 / short,
        1 - config.parallax * draw.uniform(0, 0.3),
    )


def _body(draw: Draw, config: SceneConfig, pace: float, nearness: float) -> Body:
    speed = pace * draw.uniform(0.3, 1.1)
    direction = draw.angle()
    half_x, half_y = config.width / config.short / 2, config.height / config.short / 2
    bend = config.deformation * (draw.uniform(0.05, 0.3) if draw.chance(0.7) else 0.0)
    share = draw.uniform(0.2, 1)
    wobble = draw.uniform(2, 8) * pace
    return Body(
        travel(draw, speed * abs(math.cos(direction)), (0.15, 0.6), draw.uniform(-0.65, 0.65) * half_x),
        travel(draw, speed * abs(math.sin(direction)), (0.1, 0.4), draw.uniform(-0.6, 0.6) * half_y),
        Spin(
            travel(draw, pace * draw.uniform(0, 2), (0.1, 0.7), draw.angle()),
            pace * draw.uniform(-2, 2) * float(draw.chance(0.35)),
        ),
        travel(draw, pace * draw.uniform(0, 1.2), (0.05, 0.3)),
        travel(draw, pace * draw.uniform(0, 1.2), (0.02, 0.2), draw.uniform(-0.25, 0.25)),
        draw.log_uniform(*config.object_size),
        Bending(
            travel(draw, wobble * bend, (0.5 * bend, bend), draw.uniform(-0.3, 0.3) * bend),
            travel(draw, wobble * bend, (0.4 * bend * share, bend * share)),
            draw.uniform(1, 2.8),
            draw.uniform(1, 2.8),
            Spin(Wave(draw.angle()), draw.uniform(-3, 3) * pace),
            Spin(Wave(draw.angle()), draw.uniform(-3, 3) * pace),
        ),
        nearness,
    )


def _object(
    draw: Draw,
    config: SceneConfig,
    pace: float,
    number: int,
    body: Body,
    scenery: Tensor,
    device: torch.device,
) -> list[Layer]:
    colours = textures.like(scenery, draw) if draw.chance(config.camouflage) else textures.palette(draw)
    light = draw.angle()

    def layer(shape: shapes.Shape, colours: Tensor, scale: float, limb: Limb | None) -> Layer:
        pixels = 2 * shapes.EXTENT * body.radius * scale * config.short
        n = min(max(math.ceil(pixels), 24), 640)
        field = shape(draw, n, device)
        cells = (2, 4) if config.detail <= 0 else (3.0, 9.0)
        colour = textures.texture(draw, (n, n), colours, cells, device, config.detail)
        if config.detail > 0 and draw.chance(0.6):
            colour = _rounded(draw, colour, field, light)
        return Layer(number, torch.cat([colour, field[None]]), body, limb)

    trunk = layer(draw.choice(shapes.BODIES), colours, 1.0, None)
    if not draw.chance(config.limbs):
        return [trunk]
    behind: list[Layer] = []
    front: list[Layer] = []
    count = draw.integer(1, 4)
    turn = draw.angle()
    swing_rate = min(pace * draw.uniform(4, 16), 0.35)
    for i in range(count):
        angle = turn + 2 * math.pi * i / count + draw.uniform(-0.4, 0.4)
        reach = draw.uniform(0.3, 0.5)
        swing = Wave(angle + draw.uniform(-0.4, 0.4), ((draw.uniform(0.15, 0.6), swing_rate, draw.angle()),))
        size = draw.uniform(0.45, 0.8)
        limb = Limb(swing, size, (reach * math.cos(angle), reach * math.sin(angle)))
        own = colours if draw.chance(0.6) else textures.palette(draw)
        (behind if draw.chance(0.6) else front).append(layer(shapes.limb, own, size, limb))
    return [*behind, trunk, *front]


def _rounded(draw: Draw, colour: Tensor, field: Tensor, light: float) -> Tensor:
    """Shade a tile as if its outline were the edge of a round thing lit from one side."""
    depth = draw.uniform(0.1, 0.35)
    n = field.shape[0]
    x, y = shapes.grid(n, field.device)
    edge = (1 - field / depth).clamp(0, 1) ** 2
    side = math.cos(light) * x + math.sin(light) * y
    return (colour * (1 - draw.uniform(0.2, 0.6) * edge) * (1 + draw.uniform(0, 0.35) * side)).clamp(0, 1)


def _light(draw: Draw, config: SceneConfig, pace: float) -> Light:
    strength = config.lighting
    quick = draw.log_uniform(0.003, 0.05)
    common = travel(draw, strength * quick, (0.02 * strength, 0.35 * strength))
    gains = []
    for _ in range(3):
        own = travel(
            draw, 0.3 * strength * quick, (0.0, 0.08 * strength), strength * draw.uniform(-0.08, 0.08)
        )
        gains.append(Wave(own.offset, own.parts + common.parts))
    direction = draw.angle()
    height = draw.uniform(0.02, 0.09)
    return Light(
        gains=(gains[0], gains[1], gains[2]),
        gamma=travel(
            draw, 0.5 * strength * quick, (0.0, 0.25 * strength), strength * draw.uniform(-0.25, 0.2)
        ),
        shade=min(1.0, strength * draw.uniform(0.1, 0.5)) if draw.chance(0.6) else 0.0,
        shade_angle=Spin(Wave(draw.angle()), draw.uniform(-0.03, 0.03)),
        shade_phase=Spin(Wave(draw.angle()), draw.uniform(-0.15, 0.15)),
        shade_rate=draw.uniform(0.3, 1.2),
        shadow=min(1.0, config.shadows * draw.uniform(0.15, 0.6)) if draw.chance(0.5) else 0.0,
        shadow_offset=(height * math.cos(direction), height * math.sin(direction)),
        # In short sides, so that a scene looks as sharp at every size; 0.004 is 1 pixel of 256.
        defocus=config.blur * config.short * (draw.uniform(0.001, 0.006) if draw.chance(0.4) else 0.0),
        shutter=config.motion_blur * (draw.uniform(0.2, 0.7) if draw.chance(0.35) else 0.0),
        noise=config.noise * (draw.log_uniform(0.003, 0.05) if draw.chance(0.8) else 0.0),
        coarse_noise=draw.chance(0.3),
    )
