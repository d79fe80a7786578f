"""Spatial-then-Temporal: equations against loops, what student and teacher see, what is refused."""

import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from retrace import encoders
from retrace.encoders import EncoderConfig
from retrace.encoders.colour import LAB_MEAN, LAB_STD, to_input
from retrace.encoders.heads import ContrastiveHead
from retrace.methods import stt
from retrace.methods.rebuilding import OneCrop, drop_channel
from retrace.methods.stt import StT, StTConfig
from retrace.verbs.train import load_config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods" / "stt.md"
STUDENT = EncoderConfig(width=0.125, strides=(1, 2, 2, 4), stem_pool=False, cut="layer4")
SMALL = StTConfig(crop_size=64, radius=(3, 2))
ALONE = replace(SMALL, beta=0.0)


def generator(seed=0):
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)


def draw_maps(h=4, w=6, *, batch=2, dtype=torch.float64):
    """Two levels (B, 2, C, h, w), the first twice as fine, and Lab of stride 2 and 4."""
    g = generator(3)
    fine = torch.randn(batch, 2, 3, 2 * h, 2 * w, generator=g, dtype=dtype)
    coarse = torch.randn(batch, 2, 5, h, w, generator=g, dtype=dtype)
    lab = torch.randn(batch, 2, 3, 4 * h, 4 * w, generator=g, dtype=dtype)
    return [fine, coarse], lab


def loops(features, radius):
    """Eq. (4) of one pair (2, C, h, w), one query at a time: (h, w, h, w)."""
    reference, target = features
    channels, h, w = target.shape
    out = torch.zeros(h, w, h, w, dtype=features.dtype)
    for y in range(h):
        for x in range(w):
            near = [
                (j, i) for j in range(h) for i in range(w) if abs(j - y) <= radius and abs(i - x) <= radius
            ]
            scores = torch.stack([target[:, y, x] @ reference[:, j, i] / channels**0.5 for j, i in near])
            for (j, i), weight in zip(near, scores.softmax(0), strict=True):
                out[y, x, j, i] = weight
    return out


def test_the_loss_is_what_the_equations_say():
    """Eq. (4) to (9) for one pair, by loops."""
    config = replace(ALONE, keep_fraction=0.5)
    maps, lab = draw_maps(batch=1)
    losses = stt.stt_loss(maps, [2, 4], lab, torch.tensor([2]), config)
    correlations = [loops(features[0], radius) for features, radius in zip(maps, config.radius, strict=True)]
    expected = []
    for correlation, stride in zip(correlations, (2, 4), strict=True):
        reference, target = (lab[0, t, 2, ::stride, ::stride] for t in (0, 1))
        rebuilt = torch.einsum("yxji,ji->yx", correlation, reference)
        expected.append((20 * (rebuilt - target)).abs().mean())
    fine, coarse = correlations
    h, w = coarse.shape[:2]
    pooled = fine.reshape(h, 2, w, 2, h, 2, w, 2).mean((1, 3, 5, 7))
    entropy = -torch.where(coarse > 0, coarse * coarse.clamp(min=1e-300).log(), 0).sum((-2, -1))
    kept = entropy > entropy.flatten().sort(descending=True).values[int(0.5 * h * w) - 1]
    local = (coarse - pooled).square()[kept].sum() / (kept.sum() * h * w)
    torch.testing.assert_close(losses.terms["reconstruction_layer2"], expected[0])
    torch.testing.assert_close(losses.terms["reconstruction_layer3"], expected[1])
    torch.testing.assert_close(losses.terms["local"], 1000 * local)
    torch.testing.assert_close(losses.total, sum(expected) + 1000 * local)
    assert losses.terms["kept"] == kept.double().mean()
    torch.testing.assert_close(
        losses.terms["copy"], 20 * (lab[0, 0, 2, ::4, ::4] - lab[0, 1, 2, ::4, ::4]).abs().mean()
    )


@pytest.mark.parametrize("reconstruction", ["paper", "released"])
def test_gradcheck(reconstruction):
    """Finite differences through everything that has a gradient."""
    config = replace(ALONE, reconstruction=reconstruction, radius=(2, 1), keep_fraction=1.0)
    (fine, coarse), lab = draw_maps(2, 3, batch=1)

    def total(fine, coarse, alpha):
        settings = replace(config, alpha=alpha)
        return stt.stt_loss([fine, coarse], [2, 4], lab, torch.tensor([1]), settings).total

    coarse.requires_grad_()
    assert torch.autograd.gradcheck(
        total, (fine, coarse, 1000.0)
    )  # the fine level is a constant target there
    assert torch.autograd.gradcheck(total, (fine.requires_grad_(), coarse, 0.0))
    student, teacher = torch.randn(2, 1, 2, 4, 2, 3, dtype=torch.float64, generator=generator())
    assert torch.autograd.gradcheck(
        lambda own: stt.global_distillation(own, teacher, config), student.requires_grad_()
    )


def test_the_teacher_of_the_local_distillation_gets_no_gradient():
    """The fine level learns from its reconstruction alone (departure 5)."""
    maps, lab = draw_maps()
    maps = [m.requires_grad_() for m in maps]
    with_local = stt.stt_loss(maps, [2, 4], lab, torch.tensor([1]), ALONE)
    fine, coarse = torch.autograd.grad(with_local.total, maps)
    without = stt.stt_loss(maps, [2, 4], lab, torch.tensor([1]), replace(ALONE, alpha=0.0))
    fine_alone, coarse_alone = torch.autograd.grad(without.total, maps)
    torch.testing.assert_close(fine, fine_alone)
    assert (coarse - coarse_alone).abs().max() > 1e-4


def test_a_matched_shift_is_rebuilt():
    """Where features say that the target is the reference moved by a cell, so is the picture."""
    codes = F.normalize(torch.randn(1, 32, 6, 9, generator=generator()), dim=1) * 60
    lab = torch.rand(1, 1, 3, 24, 36, generator=generator(1)).repeat(1, 2, 1, 1, 1)
    lab[:, 1] = lab[:, 0].roll((4, -8), (-2, -1))  # a row down, two columns left, at stride 4
    maps = torch.stack([codes, codes.roll((1, -2), (-2, -1))], 1)
    config = replace(ALONE, levels=("layer3",), radius=(2,), alpha=0.0)
    volume = stt.correlation.local_correlation(maps[:, 1], maps[:, 0], 2, 32**0.5)
    rebuilt = stt.correlation.reconstruct(volume, lab[:, 0, 1:2, ::4, ::4])
    torch.testing.assert_close(
        rebuilt[..., 1:, :-2], lab[:, 1, 1:2, ::4, ::4][..., 1:, :-2], atol=1e-4, rtol=0
    )
    losses = stt.stt_loss([maps], [4], lab, torch.tensor([1]), config)
    assert losses.total < 0.5 * losses.terms["copy"]
    assert "local" not in losses.terms


def test_levels_of_one_size_are_distilled_as_they_are():
    """Stride 4: no down-sampling; the wider window counts where the narrower one is zero."""
    maps, lab = draw_maps()
    same = [maps[1], maps[1] * 1.5]
    config = replace(ALONE, radius=(3, 1), keep_fraction=1.0)
    losses = stt.stt_loss(same, [4, 4], lab, torch.tensor([1]), config)
    wide, narrow = loops(same[0][1], 3), loops(same[1][1], 1)
    other = loops(same[0][0], 3) - loops(same[1][0], 1)
    expected = torch.stack([other, wide - narrow]).square().mean()
    torch.testing.assert_close(losses.terms["local"], 1000 * expected)


def test_the_true_entropy_keeps_smooth_windows_and_the_literal_one_peaked_ones():
    """Departure 6: the two scores order queries in opposite ways."""
    sharpness = torch.linspace(0.1, 3, 40).view(1, 5, 8, 1, 1)
    scores = torch.randn(1, 5, 8, 7, 7, generator=generator()) * sharpness
    volume = scores.flatten(-2).softmax(-1).view_as(scores)
    true, literal = stt.true_entropy(volume), stt.literal_entropy(scores)
    assert torch.corrcoef(torch.stack([true.flatten(), literal.flatten()]))[0, 1] < -0.7
    smooth = stt.select(true, replace(ALONE, keep_fraction=0.25))
    peaked = stt.select(literal, replace(ALONE, keep_fraction=0.25))
    assert smooth.sum() == peaked.sum() == int(0.25 * 40) - 1
    assert sharpness.flatten()[smooth.flatten() > 0].max() < 1.5
    assert sharpness.flatten()[peaked.flatten() > 0].min() > 1.5


def test_selection_on_maps_that_are_not_square():
    """Flat: one threshold per map. As released: row int(0.7 h) - 1 of the sorted rows, per column."""
    score = torch.randn(2, 5, 8, generator=generator())
    flat = stt.select(score, ALONE)
    for one, kept in zip(score, flat, strict=True):
        assert set(one[kept > 0].tolist()) == set(
            sorted(one.flatten().tolist(), reverse=True)[: int(0.7 * 40) - 1]
        )
    as_released = stt.select(score, replace(ALONE, selection="as_released"))
    for one, kept in zip(score, as_released, strict=True):
        row = sorted(one[int(0.7 * 5) - 1].tolist(), reverse=True)
        expected = [[value > row[x] for x, value in enumerate(line)] for line in one.tolist()]
        assert kept.bool().tolist() == expected
    assert stt.select(score, replace(ALONE, keep_fraction=1.0)).all()


def test_views_are_one_crop_of_both_frames():
    """Red grows with x, green with y: both frames show the same place, mirrored together or not at all."""
    ys, xs = torch.meshgrid(torch.arange(60), torch.arange(90), indexing="ij")
    clip = torch.stack([torch.stack([2 * xs, 2 * ys, torch.full_like(xs, 50 * t)]) for t in (1, 2)]).to(
        torch.uint8
    )
    before = clip.clone()
    views = pickle.loads(pickle.dumps(OneCrop(replace(SMALL, crop_ratio=(1.0, 1.5)))))
    flips = set()
    for seed in range(8):
        frames = views(clip, generator(seed))["frames"]
        assert frames.shape == (2, 3, 64, 64)
        assert frames.min() >= 0
        assert frames.max() <= 1
        torch.testing.assert_close(frames[0, :2], frames[1, :2])
        torch.testing.assert_close(frames[:, 2].mean((-2, -1)) * 255, torch.tensor([50.0, 100.0]))
        width = (frames[0, 0, 0, -1] - frames[0, 0, 0, 0]) * 255 / 2
        height = (frames[0, 1, -1, 0] - frames[0, 1, 0, 0]) * 255 / 2
        flips.add(bool(width < 0))
        assert 0.55 < (abs(width) + 1) * (height + 1) / (60 * 90) <= 1.0
        torch.testing.assert_close(frames, views(clip, generator(seed))["frames"])
    assert flips == {False, True}
    assert (clip == before).all()


@pytest.fixture
def stage_one(tmp_path):
    """A file of the spatial step: a narrow encoder up to layer4 with a contrastive head."""
    torch.manual_seed(1)
    config = EncoderConfig(width=0.125, strides=(1, 2, 1, 1), cut="layer4")
    head = ContrastiveHead(64, 12, 10).state_dict()
    model = encoders.from_state_dict(config, config.build().state_dict(), name="spatial", head=head)
    path = tmp_path / "spatial.safetensors"
    encoders.save(model, path)
    return str(path)


def student(config=SMALL, encoder=STUDENT):
    """The method with a fixed student."""
    torch.manual_seed(0)
    return StT(encoder.build(), config)


def views_of(batch=2, height=64, width=96):
    """Frames in [0, 1]."""
    return {"frames": torch.rand(batch, 2, 3, height, width, generator=generator())}


def test_forward_adds_what_the_teacher_says(stage_one):
    """Every term by hand: Lab with one channel dropped for the student, RGB for the teacher."""
    config = replace(SMALL, teacher=stage_one)
    method = student(config).eval()
    views = views_of()
    losses = method(views, generator(5))
    dropped = 1 + torch.randint(2, (1,), generator=generator(5))
    lab = to_input(views["frames"], "lab", LAB_MEAN, LAB_STD)
    seen = lab.clone()
    seen[:, :, dropped] = 0
    maps = [
        m.unflatten(0, (2, 2))
        for m in method.encoder.pyramid(1.5 * seen.flatten(0, 1), ["layer2", "layer3", "layer4"])
    ]
    assert [m.shape[-2:] for m in maps] == [(16, 24), (8, 12), (2, 3)]
    alone = stt.stt_loss(maps[:2], [4, 8], lab, dropped, config)
    model = encoders.load(stage_one)
    strided = replace(encoders.EncoderConfig(**model.card["encoder"]), strides=(1, 2, 2, 2)).build().eval()
    strided.load_state_dict(model.encoder.state_dict())
    taught = strided(to_input(views["frames"].flatten(0, 1), "rgb", model.mean, model.std)).unflatten(
        0, (2, 2)
    )
    distance = config.beta * stt.global_distillation(maps[2], taught, config)
    assert taught.shape[-2:] == (2, 3)
    torch.testing.assert_close(losses.terms["global"], distance)
    torch.testing.assert_close(losses.total, alone.total + distance)
    parts = ("reconstruction_layer2", "reconstruction_layer3", "local", "global")
    torch.testing.assert_close(sum(losses.terms[name] for name in parts), losses.total)
    assert not any(value.requires_grad for value in losses.terms.values())


def test_the_teacher_stays_as_it_is(stage_one):
    """Frozen, in eval mode, apart from what is exported; everything else learns."""
    method = student(replace(SMALL, teacher=stage_one)).train()
    assert not method.teacher.training
    assert method.encoder.training
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    method(views_of()).total.backward()
    assert all((value == before[name]).all() for name, value in method.teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    untouched = [name for name, p in method.encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []
    assert method.head is None
    assert any(name.startswith("teacher.") for name in method.state_dict())


def test_both_channels_are_dropped_and_the_generator_decides():
    """From the generator that is given, or torch's own."""
    method = student(ALONE, replace(STUDENT, cut="layer3")).eval()
    views = views_of(1)
    totals = [method(views, generator(seed)).total.item() for seed in range(12)]
    assert len(set(totals)) == 2
    assert totals == [method(views, generator(seed)).total.item() for seed in range(12)]
    torch.manual_seed(9)
    first = method(views).total
    torch.manual_seed(9)
    assert method(views).total == first


def test_learning_without_forgetting(stage_one):
    """Table 1b's comparison: projections of the frames, the student's head starting as the teacher's."""
    config = replace(SMALL, teacher=stage_one, distillation="lwf")
    method = student(config).eval()
    heads = method.head.state_dict(), method.teacher_head.state_dict()
    assert all((value == heads[1][name]).all() for name, value in heads[0].items())
    views = views_of()
    losses = method(views, generator(5))
    dropped = 1 + torch.randint(2, (1,), generator=generator(5))
    lab = to_input(views["frames"], "lab", LAB_MEAN, LAB_STD)
    own = method.head(method.encoder(drop_channel(lab, dropped).flatten(0, 1)))
    model = encoders.load(stage_one)
    taught = method.teacher_head(
        method.teacher(to_input(views["frames"].flatten(0, 1), "rgb", model.mean, model.std))
    )
    expected = config.beta * (2 - 2 * (own * taught).sum(-1)).mean()
    torch.testing.assert_close(losses.terms["global"], expected)
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in method.head.parameters())
    assert all(parameter.grad is None for parameter in method.teacher_head.parameters())


def test_one_level_is_reconstruction_alone():
    """No teacher, no local distillation: the total is the reconstruction."""
    config = StTConfig(crop_size=64, levels=("layer3",), radius=(3,), alpha=0.0, beta=0.0)
    losses = student(config, replace(STUDENT, cut="layer3"))(views_of())
    assert set(losses.terms) == {"reconstruction_layer3", "copy", "feature_std"}
    torch.testing.assert_close(losses.total.detach(), losses.terms["reconstruction_layer3"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"reconstruction": "l2"}, "reconstruction is 'l2'; expected one of paper, released"),
        ({"entropy": "false"}, "entropy is 'false'; expected one of true, literal"),
        ({"selection": "rows"}, "selection is 'rows'; expected one of flat, as_released"),
        ({"distillation": "none"}, "distillation is 'none'; expected one of correlation, lwf"),
        ({"global_layer": "res5"}, "global_layer is 'res5'; expected one of layer1"),
        (
            {"levels": ("layer3", "layer2")},
            r"levels is \['layer3', 'layer2'\]; expected one or two of .* in this order",
        ),
        ({"levels": ()}, r"levels is \[\]"),
        ({"radius": (3,)}, r"radius is \[3\]; expected a number of at least 1 for each of"),
        ({"radius": (3, 0)}, r"radius is \[3, 0\]"),
        (
            {"levels": ("layer3",), "radius": (3,)},
            "alpha is 1000.0 with the level layer3 alone; .* set alpha to 0",
        ),
        ({"temperature": 0.0}, "temperature is 0.0; expected a number above 0"),
        ({"value_scale": -1.0}, "value_scale is -1.0"),
        ({"teacher_temperature": float("nan")}, "teacher_temperature is nan"),
        ({"beta": -1.0}, "beta is -1.0; expected a weight of 0 or more"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"keep_fraction": 0.0}, "keep_fraction is 0.0; expected a share above 0, at most 1"),
        ({"crop_size": 8}, "crop_size is 8; expected at least 16 pixels"),
    ],
)
def test_bad_settings_get_a_sentence(change, sentence):
    """What it was and what it may be."""
    with pytest.raises(ValueError, match=sentence):
        replace(SMALL, **change)


def test_students_that_do_not_fit_get_a_sentence():
    """Layers that nothing trains, strides that cannot be compared, crops that leave half a cell."""
    with pytest.raises(
        ValueError, match="ends with layer4, the last layer that the losses look at is layer3"
    ):
        student(ALONE)
    with pytest.raises(
        ValueError, match="ends with layer3, the last layer that the losses look at is layer4"
    ):
        student(SMALL, replace(STUDENT, cut="layer3"))
    with pytest.raises(ValueError, match="ends with layer3 and a reduction"):
        student(ALONE, replace(STUDENT, cut="layer3", reduction=8))
    with pytest.raises(ValueError, match="the levels have strides 2 and 8"):
        student(ALONE, replace(STUDENT, strides=(1, 1, 4, 1), cut="layer3"))
    with pytest.raises(
        ValueError, match="crop_size is 68; expected a multiple of the last level's stride, 8"
    ):
        student(replace(ALONE, crop_size=68), replace(STUDENT, cut="layer3"))


def test_teachers_that_do_not_fit_get_a_sentence(stage_one, tmp_path):
    """Missing, untrained, no network, another grid, no head."""
    with pytest.raises(
        ValueError, match=r"beta is 50.0 and there is no teacher; give .* --stt.teacher, or set beta to 0"
    ):
        student(SMALL)
    with pytest.raises(ValueError, match="'random:resnet18' is untrained and has nothing to pass on"):
        student(replace(SMALL, teacher="random:resnet18"))
    with pytest.raises(ValueError, match="'lab-patches' is no ResNet"):
        student(replace(SMALL, teacher="lab-patches"))
    with pytest.raises(ValueError, match="at layer4 the teacher's stride is 16 and the student's 32"):
        student(replace(SMALL, teacher=stage_one, teacher_strides=(1, 2, 2, 1)))
    with pytest.raises(encoders.weights.RetraceError, match="do not fit the encoder"):
        student(replace(SMALL, teacher="default"))  # it ends with layer3
    config = EncoderConfig(width=0.125, cut="layer4")
    headless = encoders.from_state_dict(config, config.build().state_dict(), name="headless")
    encoders.save(headless, tmp_path / "headless.safetensors")
    for path in (tmp_path / "headless.safetensors", stage_one):
        wide = replace(STUDENT, width=0.25 if str(path) == stage_one else 0.125)
        settings = replace(SMALL, teacher=str(path), distillation="lwf")
        with pytest.raises(
            ValueError, match="has no contrastive head for (64|128) channels, which 'lwf' distils"
        ):
            student(settings, wide)


def test_an_unused_teacher_is_not_read():
    """Beta 0 on top of a recipe with a teacher."""
    config = replace(ALONE, teacher="nowhere.pth")
    assert student(config, replace(STUDENT, cut="layer3")).teacher is None


def test_released_is_what_the_tests_of_the_reference_use():
    """Every departure that has an option, decided as in the released code."""
    config = stt.released(SMALL)
    assert (config.reconstruction, config.entropy, config.selection) == ("released", "literal", "as_released")
    recipe = load_config("stt-youtubevos-released").stt
    assert recipe == stt.released(recipe)


TABLE = re.findall(
    r"^\| (1[ab]), ([^|]+) \| [\d.]+ \| `([^`|]*)` \|$",
    PAGE.read_text() if PAGE.exists() else "",
    re.MULTILINE,
)


@pytest.mark.parametrize(("table", "row", "flags"), TABLE, ids=[f"{t} {row}" for t, row, _ in TABLE])
def test_rows_of_table_1_are_flags_away(table, row, flags, stage_one):
    """Each row of docs/methods/stt.md builds, and trains with the losses that the row names."""
    words = ["stt-youtubevos", *flags.replace("STAGE1", stage_one).split(), "--encoder.width=0.125"]
    words += ["--encoder.architecture=resnet18"]  # as the file of the fixture
    config = load_config(*words, "--stt.crop_size=64", "--out=x")
    method = student(config.stt, config.encoder)
    terms = method(views_of(height=64, width=64)).terms
    assert ("p" in row.split()) == ("reconstruction_layer2" in terms) or table == "1b"
    assert ("L_lc" in row) == ("local" in terms) or table == "1b"
    assert ("L_gc" in row or "LwF" in row) == ("global" in terms)
    assert ("L_nce" in row or table == "1b") == (config.init is not None)
    if table == "1a" and "local" in terms:
        assert (config.stt.keep_fraction < 1) == (" e" in row)
    assert config.stt.distillation == ("lwf" if "LwF" in row else "correlation")


def test_table_1_is_whole():
    """Six rows of Table 1a, three of 1b that train on video."""
    assert [table for table, _, _ in TABLE] == ["1a"] * 6 + ["1b"] * 3
