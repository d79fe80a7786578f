"""A run of Spatial-then-Temporal: what it leaves behind, and that it propagates."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import retrace
from retrace import encoders
from retrace.encoders import EncoderConfig
from retrace.encoders.colour import LAB_MEAN, LAB_STD
from retrace.errors import UsageError
from retrace.training.adapt import adapt_model
from retrace.training.checkpoints import read_checkpoint
from retrace.verbs.train import load_config, train

SMALL = (
    "--stt.crop_size=32",
    "--encoder.width=0.125",
    "--clips.synthetic_height=40",
    "--clips.synthetic_width=56",
    "--steps=2",
    "--batch_size=2",
    "--workers=0",
    "--device=cpu",
    "--log.tensorboard=false",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps of the laptop recipe at toy size, with a teacher from a file: (folder, report)."""
    folder = tmp_path_factory.mktemp("stt")
    config = EncoderConfig(width=0.25, strides=(1, 2, 1, 1))
    torch.manual_seed(0)
    teacher = encoders.from_state_dict(config, config.build().state_dict(), name="spatial")
    encoders.save(teacher, folder / "spatial.safetensors")
    config = load_config(
        "stt-laptop", *SMALL, f"--stt.teacher={folder / 'spatial.safetensors'}", f"--out={folder}/run"
    )
    return folder, train(config, recipe="stt-laptop", progress=False)


def test_the_encoder_alone_is_exported_and_sees_lab(run):
    """No teacher, no path of this machine; the same from the run's checkpoint."""
    folder, report = run
    assert report.step == 2
    assert {"local", "global", "copy", "reconstruction_layer3"} <= report.metrics.keys()
    model = retrace.load(report.files["encoder"])
    assert (model.colour, model.mean, model.std) == ("lab", LAB_MEAN, LAB_STD)
    assert model.head == {}
    assert model.card["config"]["stt"]["teacher"] == "spatial.safetensors"
    assert str(folder) not in str(model.card)
    saved = read_checkpoint(folder / "run" / "last.ckpt")
    assert any(name.startswith("method.teacher.") for name in saved["state_dict"])
    again = retrace.load(folder / "run" / "last.ckpt")
    assert again.colour == "lab"
    images = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)
    torch.testing.assert_close(again.features(images), model.features(images))
    same = dataclasses.replace(model, colour="rgb")
    assert (same.features(images) - model.features(images)).abs().max() > 1e-3


def test_a_run_may_begin_with_a_checkpoint_of_another(run):
    """`init` and the teacher from last.ckpt, built with the strides that are asked for."""
    folder, _ = run
    last = folder / "run" / "last.ckpt"
    wanted = EncoderConfig(width=0.125, strides=(1, 1, 1, 1), stem_pool=False)
    model = encoders.load(last, config=wanted)
    assert model.stride == 2
    exported = encoders.load(folder / "run" / "encoder.safetensors").encoder.state_dict()
    assert all((value == exported[name]).all() for name, value in model.encoder.state_dict().items())


def test_it_propagates(run, tmp_path):
    """A red square on green, carried from frame to frame by a file that says that it wants Lab."""
    _, report = run
    noise = np.random.default_rng(0).integers(0, 40, (48, 80, 3), dtype=np.uint8)
    truths = []
    for t in range(3):
        image, truth = noise + np.array([0, 150, 0], np.uint8), np.zeros((48, 80), np.uint8)
        image[8:32, 16 + 8 * t : 40 + 8 * t] = noise[8:32, :24] + np.array([200, 0, 0], np.uint8)
        truth[8:32, 16 + 8 * t : 40 + 8 * t] = 1
        Image.fromarray(image).save(tmp_path / f"{t}.png")
        truths.append(truth)
    result = retrace.propagate(
        tmp_path, truths[0], model=report.files["encoder"], device="cpu", num_context=2
    )
    found = [frame.masks for frame in result]
    assert len(found) == 3
    for truth, mask in zip(truths, found, strict=True):
        both = ((mask == 1) & (truth == 1)).sum() / ((mask == 1) | (truth == 1)).sum()
        assert both > 0.4


def test_it_is_not_adapted_by_a_method_that_sees_rgb(run, tmp_path):
    """`--adapt` trains with STFC3."""
    _, report = run
    with pytest.raises(UsageError, match=r"wants lab images .* adapting needs rgb"):
        adapt_model(retrace.load(report.files["encoder"]), tmp_path / "none.mp4", 1, progress=False)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--stt.teacher=null",), "stt: beta is 50.0 and there is no teacher"),
        (("--stt.teacher=random:resnet18",), "stt: the teacher 'random:resnet18' is untrained"),
        (("--stt.beta=0", "--encoder.cut=layer4"), "stt: the encoder ends with layer4"),
        (
            ("--stt.teacher_strides=[1,2,2,1]",),
            "stt: at layer3 the teacher's stride is 16 and the student's 8",
        ),
    ],
)
def test_wrong_use_is_a_sentence(tmp_path, flags, sentence):
    """Before anything is trained."""
    with pytest.raises(UsageError, match=sentence):
        train(load_config("stt-laptop", *SMALL, *flags, f"--out={tmp_path}/run"), progress=False)
