"""Published checkpoints: recognised by their keys, ready for propagation, every unused key listed, no code run."""

import argparse
import collections
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from retrace import encoders
from retrace.encoders.published import FAMILIES
from retrace.encoders.reading import read_tensors
from retrace.errors import RetraceError, UsageError
from retrace.propagation.protocols import PROTOCOLS
from tests.encoders import published_files as made


def write(content: object, path: Path) -> Path:
    """As its authors wrote it: torch.save, or for detectron2 a plain pickle."""
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("name", made.CASES)
def test_a_published_file(tmp_path: Path, name: str) -> None:
    """Whose it is, how it must be built, its very numbers, and every key that was left aside."""
    case = made.CASES[name]
    path = write(case.content(), tmp_path / ("file.pkl" if name == "detectron" else "file.pth.tar"))
    model = encoders.load(path)
    built = model.card["encoder"]
    assert model.card["published"]["family"] == case.family
    assert model.card["published"]["protocol"] == case.protocol
    assert (built["architecture"], built["width"], built["cut"]) == (case.architecture, made.WIDTH, "layer3")
    assert (tuple(built["strides"]), built["padding_mode"]) == (case.strides, case.padding)
    assert (built["stem_pool"], built["reduction"], model.colour) == (
        case.stem_pool,
        case.reduction,
        case.colour,
    )
    assert model.stride == 8
    state, truth = model.encoder.state_dict(), made.network(case.architecture)
    for key, tensor in state.items():
        if key != "reduction.weight" and not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, truth[key]), key
    tensors, _ = read_tensors(path)
    used = [key for key in tensors if key not in model.card["unmatched"]]
    assert len(used) == len([key for key in state if name != "timecycle" or "num_batches" not in key])
    assert all(key.startswith(case.prefix) or "afterconv1" in key for key in used)


def test_timecycles_reduction_is_part_of_the_encoder(tmp_path: Path) -> None:
    """afterconv1 and its ReLU stand after layer3, as its own test program has it."""
    content = made.timecycle()
    model = encoders.load(write(content, tmp_path / "t.pth"))
    weight = content["state_dict"]["module.afterconv1.weight"][:, :, 0]
    assert torch.equal(model.encoder.state_dict()["reduction.weight"], weight)
    assert model.channels == 9
    assert (model.features(torch.rand(1, 3, 40, 56)) >= 0).all()


def test_stfc3s_projector_comes_along(tmp_path: Path) -> None:
    """Under the names of our own head, so that training can go on from it."""
    head = encoders.load(write(made.stfc3(), tmp_path / "s.pth")).head
    assert {name: tensor.flatten()[0].item() for name, tensor in head.items()} == {
        "proj1.weight": 1,
        "proj1.bias": 2,
        "projbn.weight": 3,
        "projbn.bias": 4,
        "projbn.running_mean": 5,
        "projbn.running_var": 6,
        "projbn.num_batches_tracked": 7,
        "proj2.weight": 8,
    }


def test_of_copies_the_one_that_was_trained(tmp_path: Path) -> None:
    """BYOL: the online network, not its slow copy; projector and predictor are no encoders."""
    state = made.below("target_encoder.net.", {name: tensor + 1 for name, tensor in made.network().items()})
    state |= made.below("online_encoder.net.", made.network())
    state |= {
        "online_encoder.projector.net.0.weight": torch.ones(2, 2),
        "online_predictor.0.bias": torch.ones(2),
    }
    model = encoders.load(write(state, tmp_path / "byol.pth"))
    assert torch.equal(model.encoder.state_dict()["conv1.weight"], made.network()["conv1.weight"])
    assert {"online_encoder.projector.net.0.weight", "online_predictor.0.bias"} <= set(
        model.card["unmatched"]
    )


def test_two_families_that_look_alike_are_asked_for(tmp_path: Path) -> None:
    """VFS and Spatial-then-Temporal differ in colour and strides; a bare backbone could be of either."""
    path = write(made.student_only(), tmp_path / "bare.pth")
    with pytest.raises(RetraceError, match=r"bare.pth .*as=vfs or ,as=stt or ,as=stt-stride4"):
        encoders.load(path)
    found = {name: encoders.load(f"{path},as={name}") for name in ("vfs", "stt", "stt-stride4")}
    assert {name: (model.stride, model.colour) for name, model in found.items()} == {
        "vfs": (8, "rgb"),
        "stt": (8, "lab"),
        "stt-stride4": (4, "lab"),
    }
    assert found["stt-stride4"].card["encoder"]["pool"] == "mean"
    assert found["stt"].name == "bare,as=stt"
    with pytest.raises(UsageError, match="as=vgg is no family"):
        encoders.load(f"{path},as=vgg")


def test_lab_is_opencvs(tmp_path: Path) -> None:
    """A Lab encoder sees OpenCV's Lab of float RGB, minus (50, 0, 0), over (50, 127, 127), from uint8 and float."""
    model = encoders.load(write(made.stt(), tmp_path / "s.pth"))
    image = torch.randint(
        0, 255, (1, 3, 34, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    rgb = image[0].permute(1, 2, 0).numpy().astype(np.float32) / 255
    lab = (cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB) - [50, 0, 0]) / [50, 127, 127]
    with torch.inference_mode():
        expected = model.encoder(torch.from_numpy(lab).float().permute(2, 0, 1)[None])
    for given in (image, image / 255):
        torch.testing.assert_close(
            model.features(given), expected, atol=0.02 * expected.std().item(), rtol=0.02
        )


def test_every_family_names_a_protocol_that_exists() -> None:
    """What docs and cards advise can be given to --protocol."""
    for family in FAMILIES.values():
        assert set(family.protocol) <= set(PROTOCOLS)


@pytest.mark.parametrize("name", ["crw", "stt", "timecycle"])
def test_saved_as_ours_it_is_the_same(tmp_path: Path, name: str) -> None:
    """Colour, normalisation, strides and origin survive."""
    model = encoders.load(write(made.CASES[name].content(), tmp_path / "a.pth"))
    encoders.save(model, tmp_path / "b.safetensors")
    again = encoders.load(tmp_path / "b.safetensors")
    assert (again.colour, again.mean, again.std, again.stride) == (
        model.colour,
        model.mean,
        model.std,
        model.stride,
    )
    assert again.sha256 == model.sha256
    assert again.card["published"] == model.card["published"]
    image = torch.rand(1, 3, 40, 56)
    torch.testing.assert_close(again.features(image), model.features(image))


def test_a_tensor_too_few_or_of_another_shape_is_refused(tmp_path: Path) -> None:
    """Named; nothing is filled in."""
    content = made.vfs()
    del content["state_dict"]["backbone.layer2.0.conv1.bn.weight"]
    with pytest.raises(RetraceError, match=r"missing layer2.0.bn1.weight"):
        encoders.load(write(content, tmp_path / "less.pth"))
    content["state_dict"]["backbone.layer2.0.conv1.bn.weight"] = torch.ones(5)
    with pytest.raises(RetraceError, match=r"layer2.0.bn1.weight: file \(5,\), encoder \(16,\)"):
        encoders.load(write(content, tmp_path / "other.pth"))


def test_a_depth_that_is_not_built(tmp_path: Path) -> None:
    """ResNet-152 is not taken for a ResNet-101 with keys left over."""
    state = made.network("resnet50") | {f"layer3.{i}.conv1.weight": torch.ones(1) for i in range(36)}
    with pytest.raises(RetraceError, match="of 3, 4, 36, 3 bottleneck blocks"):
        encoders.load(write(state, tmp_path / "deep.pth"))


def test_a_vision_transformer_is_sent_to_timm(tmp_path: Path) -> None:
    """Its keys are known, what to do is said."""
    state = {"cls_token": torch.zeros(1, 1, 4), "patch_embed.proj.weight": torch.zeros(4, 3, 16, 16)}
    with pytest.raises(RetraceError, match="vision transformer: give timm:NAME,weights=FILE"):
        encoders.load(write(state, tmp_path / "vit.pth"))


class Config(dict):  # type: ignore[type-arg]
    """Stands for mmcv's ConfigDict: harmless, and still not plain data."""


def test_plain_data_of_old_programs_is_read_and_nothing_else(tmp_path: Path) -> None:
    """Namespaces, numpy numbers and counters pass; a class of another package is named, and what to do."""
    plain = {
        "args": argparse.Namespace(lr=1e-3),
        "best": np.float64(0.5),
        "scores": np.arange(3.0),
        "milestones": collections.Counter([1, 2]),
        "state_dict": made.torchvision(),
    }
    for path in (
        write(plain, tmp_path / "plain.pth"),
        write(plain | {"state_dict": {}}, tmp_path / "plain.pkl"),
    ):
        tensors, _ = read_tensors(path)
        assert torch.equal(tensors["scores"], torch.arange(3.0).double())
    assert encoders.load(tmp_path / "plain.pth").stride == 8
    with pytest.raises(RetraceError, match=r"an object of \S*Config; .* never does .* torch.save"):
        encoders.load(write({"meta": Config(a=1), "state_dict": {}}, tmp_path / "mmcv.pth"))


def test_files_of_torch_before_1_6(tmp_path: Path) -> None:
    """The old format of torch.save, in which TimeCycle and early MoCo files are."""
    torch.save(made.crw(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert encoders.load(tmp_path / "old.pth").card["published"]["family"] == "crw"
