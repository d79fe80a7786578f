"""The truth of rendered scenes."""

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from retrace.errors import UsageError
from retrace.synthetic import Scene, SceneConfig, paint, render, scene, shapes
from retrace.synthetic.world import World, build

LIVELY = SceneConfig(height=72, width=112, num_frames=6, num_objects=(3, 5), speed=(0.02, 0.06))
CLEAN = replace(LIVELY, lighting=0, noise=0, blur=0, motion_blur=0, shadows=0, detail=0, limbs=0.7)
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def clean() -> list[Scene]:
    """Scenes whose pictures show surfaces and nothing else."""
    return [render(seed, CLEAN) for seed in SEEDS]


@pytest.fixture(scope="module")
def lively() -> list[Scene]:
    """Scenes with everything on."""
    return [render(seed, LIVELY) for seed in SEEDS]


def landing(flow: Tensor) -> tuple[Tensor, Tensor]:
    """x, y (T - 1, H, W): where the pixel centres land."""
    height, width = flow.shape[2:]
    x, y = paint.pixel_centres(height, width, flow.device)
    return x + flow[:, 0], y + flow[:, 1]


def read(images: Tensor, x: Tensor, y: Tensor, mode: str = "bilinear") -> Tensor:
    """Images (B, C, H, W) at pixel coordinates (B, H, W)."""
    height, width = images.shape[2:]
    where = torch.stack([x / width * 2 - 1, y / height * 2 - 1], -1)
    return F.grid_sample(images, where, mode=mode, padding_mode="border", align_corners=False)


def uniform(masks: Tensor, reach: int = 2) -> Tensor:
    """(T, H, W) bool: all pixels within `reach` have one value."""
    padded = F.pad(masks.float()[:, None], [reach] * 4, mode="replicate")
    size = 2 * reach + 1
    return (F.max_pool2d(padded, size, 1) == -F.max_pool2d(-padded, size, 1))[:, 0]


def same(a: Scene, b: Scene) -> bool:
    """Whether two scenes are equal bit for bit."""
    return all(
        torch.equal(getattr(a, field.name).nan_to_num(-1), getattr(b, field.name).nan_to_num(-1))
        for field in fields(Scene)
    )


def test_shapes_and_types(lively: list[Scene]) -> None:
    """Shapes and types."""
    for s in lively:
        n = s.boxes.shape[1]
        k = n * LIVELY.keypoints_per_object
        assert 3 <= n <= 5
        assert (s.frames.shape, s.frames.dtype) == ((6, 3, 72, 112), torch.uint8)
        assert (s.masks.shape, s.masks.dtype) == ((6, 72, 112), torch.uint8)
        assert (s.keypoints.shape, s.keypoints.dtype) == ((6, k, 2), torch.float32)
        assert (s.keypoints_visible.shape, s.keypoints_visible.dtype) == ((6, k), torch.bool)
        assert (s.keypoint_object.shape, s.keypoint_object.dtype) == ((k,), torch.int64)
        assert (s.boxes.shape, s.boxes.dtype) == ((6, n, 4), torch.float32)
        assert (s.flow.shape, s.flow.dtype) == ((5, 2, 72, 112), torch.float32)
        assert (s.occluded.shape, s.occluded.dtype) == ((5, 72, 112), torch.bool)
        assert not any(getattr(s, field.name).is_inference() for field in fields(Scene))
        assert torch.isfinite(s.flow).all()
        assert s.masks.max() <= n
        assert s.keypoint_object.tolist() == [i + 1 for i in range(n) for _ in range(8)]


def test_things_move_and_hide_one_another(lively: list[Scene]) -> None:
    """Things move and hide one another."""
    for s in lively:
        assert 0.02 < float((s.masks > 0).float().mean()) < 0.9
        assert float(s.flow.abs().max()) > 0.5
        assert s.occluded.any()
        assert not s.occluded.all()
        assert float(s.frames.float().std()) > 8, "a picture, not a grey card"


def test_next_frame_read_along_the_flow_is_this_frame(clean: list[Scene]) -> None:
    """Next frame read along the flow is this frame."""
    errors, stills = [], []
    for s in clean:
        x, y = landing(s.flow)
        warped = read(s.frames[1:].float(), x, y)
        # Outlines are blended over a pixel: look inside, here and where the point lands.
        inside = uniform(s.masks[:-1]) & (read(uniform(s.masks[1:], 3)[:, None].float(), x, y)[:, 0] > 0.999)
        seen = inside & ~s.occluded
        assert float(seen.float().mean()) > 0.4
        errors.append((warped - s.frames[:-1].float()).abs().amax(1)[seen])
        stills.append((s.frames[1:].float() - s.frames[:-1].float()).abs().amax(1)[seen])
        # Reading twice between texels, and rounding to 8 bits, leaves a little; a wrong flow leaves tens. Parts of
        # one object may meet inside one mask value, so a few pixels are let go here;
        # `test_flow_keeps_the_coordinates_of_the_surface` has them all.
        assert float(errors[-1].mean()) < 1.0
        assert float(errors[-1].quantile(0.97)) < 4.0
    assert float(torch.cat(stills).mean()) > 3 * float(torch.cat(errors).mean()), (
        "the flow explains the motion"
    )


def test_hidden_pixels_are_those_that_do_not_agree(clean: list[Scene]) -> None:
    """Hidden pixels are those that do not agree."""
    for s in clean:
        x, y = landing(s.flow)
        inside = (x >= 0) & (x < 112) & (y >= 0) & (y < 72)
        assert (s.occluded | inside).all(), "what leaves the frame is occluded"
        here, there = s.masks[:-1], read(s.masks[1:, None].float(), x, y, mode="nearest")[:, 0]
        agree = (here == there)[~s.occluded]
        # The nearest pixel centre may lie across an outline from the exact point.
        assert float(agree.float().mean()) > 0.98
        away = (~s.occluded) & (read(uniform(s.masks[1:], 1)[:, None].float(), x, y)[:, 0] > 0.999)
        assert (here == there)[away].all()


def coordinates(world: World) -> World:
    """The same world painted with each layer's own coordinates and number: u, v, index."""
    layers = []
    for index, layer in enumerate(world.layers):
        u, v = shapes.grid(layer.tile.shape[1], torch.device("cpu"))
        layers.append(replace(layer, tile=torch.stack([u, v, torch.full_like(u, index + 1), layer.tile[3]])))
    ground = world.background
    rows, columns = ground.tile.shape[1:]
    u = ((torch.arange(columns) + 0.5) / columns * 2 - 1) * ground.half_x
    v = ((torch.arange(rows) + 0.5) / rows * 2 - 1) * ground.half_y
    grid = torch.stack(
        [u.expand(rows, columns), v[:, None].expand(rows, columns), torch.zeros(rows, columns)]
    )
    return replace(world, layers=tuple(layers), background=replace(ground, tile=grid))


def test_flow_keeps_the_coordinates_of_the_surface() -> None:
    """Every surface painted with its own coordinates: the flow must lead to the same coordinates, sub-pixel exact."""
    for seed in SEEDS:
        world = build(CLEAN, torch.Generator().manual_seed(seed), torch.device("cpu"))
        painted = coordinates(world)
        flow, occluded = scene._flow(world, [paint.layer_map(world, t) for t in range(3)])
        x, y = landing(flow)
        for t in range(2):
            now, after = paint.albedo(painted, [t, t + 1]).unbind(1)
            read_after = read(after[None], x[t : t + 1], y[t : t + 1])[0]
            shown, shown_after = paint.layer_map(world, t), paint.layer_map(world, t + 1)
            clear = uniform(shown[None], 2)[0] & ~occluded[t]
            clear &= (
                read(uniform(shown_after[None], 2)[:, None].float(), x[t : t + 1], y[t : t + 1])[0, 0] > 0.999
            )
            # Near the frame's border an object may begin just outside, and blend with what is inside.
            clear &= (x[t] > 3) & (x[t] < 109) & (y[t] > 3) & (y[t] < 69)
            assert float(clear.float().mean()) > 0.4
            assert (read_after[2] - now[2])[clear].abs().max() < 1e-3
            for index in range(-1, len(world.layers)):
                own = clear & (shown == index)
                if own.any():
                    pixels = world.pose(index, t + 1).scale * (read_after[:2] - now[:2])[:, own]
                    assert pixels.abs().max() < 0.02, "pixels off"


def test_pictures_painted_together_are_those_painted_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: shadows, limbs, things that leave the frame, motion blur, noise, and however many at once."""
    for seed in SEEDS:
        world = build(replace(LIVELY, limbs=0.7), torch.Generator().manual_seed(seed), torch.device("cpu"))
        world = replace(world, light=replace(world.light, shadow=0.4, shutter=0.5, noise=0.02))
        times = [0, 3, 4.5, 60, 21]
        alone = torch.stack([paint.albedo(world, [time])[:, 0] for time in times], 1)
        assert torch.equal(paint.albedo(world, times), alone)
        films = []
        for pixels in (1, 3 * 72 * 112, 10**9):
            monkeypatch.setattr(paint, "_TOGETHER", pixels)
            generator = torch.Generator().manual_seed(7)
            films.append(torch.stack(list(paint.photographs(world, times, generator, 4))))
        assert films[0].shape == (5, 3, 72, 112)
        assert torch.equal(films[0], films[1])
        assert torch.equal(films[0], films[2])


def test_the_picture_is_every_layer_blended_over_the_whole_frame() -> None:
    """Windows and the steps shared by several pictures leave nothing out."""
    x, y = paint.pixel_centres(72, 112, torch.device("cpu"))
    for seed in SEEDS:
        world = build(replace(CLEAN, deformation=2), torch.Generator().manual_seed(seed), torch.device("cpu"))
        for picture, time in zip(paint.albedo(world, [0, 17.5]).unbind(1), (0, 17.5), strict=True):
            u, v = world.pose(paint.BACKGROUND, time).backward(x, y)
            grid = torch.stack([u / world.background.half_x, v / world.background.half_y], -1)[None]
            plain = F.grid_sample(
                world.background.tile[None], grid, padding_mode="reflection", align_corners=False
            )[0]
            for index, layer in enumerate(world.layers):
                pose = world.pose(index, time)
                grid = (
                    torch.stack(pose.backward(x.expand(72, 112), y.expand(72, 112)), -1)[None] / shapes.EXTENT
                )
                sampled = F.grid_sample(layer.tile[None], grid, padding_mode="border", align_corners=False)[0]
                # Beyond the tile its border is repeated, which is outside, but maybe by less than half a pixel.
                inside = (grid[0].abs() <= 1).all(-1)
                cover = (sampled[3] * pose.scale + 0.5).clamp(0, 1) * inside
                plain = plain + cover * (sampled[:3] - plain)
            torch.testing.assert_close(picture, plain, atol=1e-5, rtol=0)


def test_keypoints_ride_on_their_objects(lively: list[Scene]) -> None:
    """Keypoints ride on their objects."""
    for s in lively:
        seen = s.keypoints_visible
        assert float(seen.float().mean()) > 0.1
        for t in range(len(s.frames)):
            x, y = s.keypoints[t][seen[t]].unbind(-1)
            assert ((x >= 0) & (x < 112) & (y >= 0) & (y < 72)).all()
            assert torch.equal(s.masks[t][y.long(), x.long()].long(), s.keypoint_object[seen[t]])
            hidden = s.keypoints[t][~seen[t]]
            assert torch.isfinite(hidden).all()


def test_keypoints_follow_the_flow(lively: list[Scene]) -> None:
    """The flow at the pixel under a visible keypoint takes the keypoint along."""
    steps, errors = [], []
    for s in lively:
        for t in range(len(s.flow)):
            seen = s.keypoints_visible[t]
            x, y = s.keypoints[t][seen].unbind(-1)
            predicted = s.keypoints[t][seen] + s.flow[t][:, y.long(), x.long()].T
            errors.append((predicted - s.keypoints[t + 1][seen]).norm(dim=-1))
            steps.append((s.keypoints[t + 1][seen] - s.keypoints[t][seen]).norm(dim=-1))
    error, step = torch.cat(errors), torch.cat(steps)
    # A keypoint is up to 0.7 px from the centre, and the flow varies; a limb's pixel may be its body's.
    assert float(error.median()) < 0.05
    assert float(error.quantile(0.95)) < 0.4
    assert float(step.median()) > 0.5


def test_boxes_are_the_extents_of_the_masks(lively: list[Scene]) -> None:
    """Boxes are the extents of the masks."""
    empty = 0
    for s in lively:
        for t in range(len(s.masks)):
            for n in range(s.boxes.shape[1]):
                mask = s.masks[t] == n + 1
                box = s.boxes[t, n]
                if not mask.any():
                    empty += 1
                    assert box.isnan().all()
                    continue
                x0, y0, x1, y1 = (int(edge) for edge in box)
                assert mask[y0:y1, x0:x1].sum() == mask.sum()
                assert mask[y0].any()
                assert mask[y1 - 1].any()
                assert mask[:, x0].any()
                assert mask[:, x1 - 1].any()


def test_a_seed_is_a_scene_bit_for_bit(lively: list[Scene]) -> None:
    """A seed is a scene bit for bit."""
    assert same(render(SEEDS[0], LIVELY), lively[0])
    other = render(99, LIVELY)
    assert not torch.equal(other.frames, lively[0].frames)
    assert not torch.equal(other.masks, lively[0].masks)


def test_a_shorter_scene_is_the_beginning_of_a_longer_one(lively: list[Scene]) -> None:
    """A shorter scene is the beginning of a longer one."""
    for seed in SEEDS:
        short, long = render(seed, replace(LIVELY, num_frames=3)), lively[seed]
        assert torch.equal(short.frames, long.frames[:3])
        assert torch.equal(short.masks, long.masks[:3])
        assert torch.equal(short.keypoints, long.keypoints[:3])
        assert torch.equal(short.keypoints_visible, long.keypoints_visible[:3])
        assert torch.equal(short.flow, long.flow[:2])
        assert torch.equal(short.occluded, long.occluded[:2])
        assert torch.equal(short.boxes.nan_to_num(-1), long.boxes[:3].nan_to_num(-1))


def test_the_number_of_threads_does_not_matter() -> None:
    """The number of threads does not matter."""
    config = replace(LIVELY, num_frames=2, height=160, width=240)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = render(5, config)
        torch.set_num_threads(2)
        two = render(5, config)
    finally:
        torch.set_num_threads(threads)
    assert same(one, two)


def test_one_frame_without_objects() -> None:
    """One frame without objects."""
    s = render(0, SceneConfig(height=20, width=33, num_frames=1, num_objects=(0, 0)))
    assert s.frames.shape == (1, 3, 20, 33)
    assert s.masks.max() == 0
    assert s.keypoints.shape == (1, 0, 2)
    assert s.boxes.shape == (1, 0, 4)
    assert s.flow.shape == (0, 2, 20, 33)
    assert s.occluded.shape == (0, 20, 33)


def test_switched_off_everything_stands_still() -> None:
    """Switched off everything stands still."""
    config = replace(CLEAN, camera=0, speed=(1e-9, 1e-9), num_frames=3)
    s = render(1, config)
    assert float(s.flow.abs().max()) < 1e-3
    assert (s.frames.float() - s.frames[:1].float()).abs().max() <= 1
    assert not s.occluded[:, 2:-2, 2:-2].any()


def test_render_leaves_the_global_generator_alone() -> None:
    """Render leaves the global generator alone."""
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    render(0, replace(LIVELY, num_frames=1))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"height": 8}, "16"),
        ({"num_frames": 0}, "num_frames"),
        ({"num_objects": (3, 2)}, "num_objects"),
        ({"num_objects": (1, 300)}, "255"),
        ({"speed": (0.0, 0.1)}, "speed"),
        ({"object_size": (0.2, 0.1)}, "object_size"),
        ({"limbs": 1.5}, "limbs"),
        ({"noise": -1.0}, "noise"),
        ({"keypoints_per_object": -1}, "keypoints_per_object"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_sentence(change: dict[str, object], word: str) -> None:
    """What cannot be drawn is refused with a sentence."""
    with pytest.raises(UsageError, match=word):
        replace(LIVELY, **change)  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_gpu_renders_the_same_world() -> None:
    """A gpu renders the same world."""
    on_cpu, on_gpu = render(2, CLEAN), render(2, CLEAN, device="cuda")
    assert on_gpu.frames.is_cuda
    assert float((on_gpu.masks.cpu() == on_cpu.masks).float().mean()) > 0.999
    assert float((on_gpu.frames.cpu().float() - on_cpu.frames.float()).abs().mean()) < 0.5
    same_layer = (on_gpu.masks.cpu() == on_cpu.masks)[:-1] & uniform(on_cpu.masks[:-1])
    assert float((on_gpu.flow.cpu() - on_cpu.flow).abs().amax(1)[same_layer].quantile(0.99)) < 1e-2
