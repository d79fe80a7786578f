"""Made files with the key names that published checkpoints have, round a small ResNet with known numbers."""

import argparse
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retrace.encoders import EncoderConfig

State = dict[str, Tensor]
WIDTH = 0.125


def network(architecture: str = "resnet18") -> State:
    """All four layers under torchvision's names; every tensor different, statistics included."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = EncoderConfig(architecture, WIDTH, cut="layer4").build().state_dict()
        return {
            name: torch.rand_like(tensor) + 0.5
            if "bn" in name and tensor.is_floating_point()
            else tensor.clone()
            for name, tensor in state.items()
        }


def below(prefix: str, state: State) -> State:
    """The same tensors under names with a prefix."""
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def mmcv(state: State) -> State:
    """As mmcv's ConvModule names them: layer1.0.conv1.conv.weight, layer1.0.conv1.bn.weight, downsample.conv.weight."""
    named = {}
    for name, tensor in state.items():
        parts = name.split(".")
        last, module = parts[-1], parts[-2]
        if "downsample" in parts:
            new = [*parts[:-2], {"0": "conv", "1": "bn"}[module], last]
        else:
            new = [*parts[:-2], f"conv{module[-1]}", module[:-1], last]
        named[".".join(new)] = tensor
    return named


def detectron2(state: State) -> State:
    """As detectron2 names them: stem.conv1.norm.weight, res2.0.conv1.weight, res3.0.shortcut.norm.weight."""
    named = {}
    for name, tensor in state.items():
        new = name if name.startswith("layer") else f"stem.{name}"
        for depth in (1, 2, 3, 4):
            new = new.replace(f"layer{depth}.", f"res{depth + 1}.")
            new = new.replace(f"bn{depth}.", f"conv{depth}.norm.")
        named[new.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")] = tensor
    return named


def _fc(state: State, classes: int = 7) -> State:
    return {**state, "fc.weight": torch.ones(classes, 4), "fc.bias": torch.ones(classes)}


def crw() -> Any:
    """ajabri/videowalk: model, optimizer, lr_scheduler, epoch, and the Namespace of its flags."""
    model = below("encoder.model.", network())
    model |= {"selfsim_fc.0.weight": torch.ones(16, 64), "selfsim_fc.0.bias": torch.ones(16)}
    flags = argparse.Namespace(model_type="scratch", temp=0.05, lr_milestones=[20], device="cuda")
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}
    return {
        "model": model,
        "optimizer": optimizer,
        "lr_scheduler": {"last_epoch": 2},
        "epoch": 2,
        "args": flags,
    }


def stfc3() -> Any:
    """Steve-Tod/STFC3: a bare state dict with backbone and projector."""
    projector = {
        "conv1d_0_512_2048.weight": torch.ones(5, 64, 1, 1),
        "conv1d_0_512_2048.bias": torch.full((5,), 2.0),
        "bn_0.weight": torch.full((5,), 3.0),
        "bn_0.bias": torch.full((5,), 4.0),
        "bn_0.running_mean": torch.full((5,), 5.0),
        "bn_0.running_var": torch.full((5,), 6.0),
        "bn_0.num_batches_tracked": torch.tensor(7),
        "conv1d_1_2048_512.weight": torch.full((3, 5, 1, 1), 8.0),
    }
    return OrderedDict(below("encoder.backbone.", network()) | below("encoder.projector.", projector))


def timecycle() -> Any:
    """xiaolonw/TimeCycle: 3D convolutions of length 1, no step counters, a 1x1 reduction, a localizer."""
    encoder = {
        name: tensor[:, :, None] if tensor.dim() == 4 else tensor
        for name, tensor in network("resnet50").items()
        if not name.endswith("num_batches_tracked")
    }
    rest = {
        "afterconv1.weight": torch.randn(9, 128, 1, 1, 1, generator=torch.Generator().manual_seed(1)),
        "afterconv3_trans.weight": torch.ones(4, 9, 4, 4),
        "afterconv4_trans.weight": torch.ones(4, 4, 4, 4),
        "linear2.weight": torch.ones(3, 4),
        "linear2.bias": torch.ones(3),
    }
    state = below("module.", below("encoderVideo.", encoder) | rest)
    return {"epoch": 30, "arch": "resnet50", "state_dict": state, "optimizer": {"state": {}}}


def vfs() -> Any:
    """xvjiarui/VFS: mmcv's names, and a head."""
    head = {
        "img_head.projection_fcs.0.conv.weight": torch.ones(4, 4),
        "img_head.predictor_fcs.0.bn.bias": torch.ones(4),
    }
    meta = {"epoch": 100, "config": "model = dict(type='SimSiamBaseTracker')", "mmcv_version": "1.2.0"}
    return {"meta": meta, "state_dict": below("backbone.", mmcv(network())) | head, "optimizer": {}}


def stt() -> Any:
    """qianduoduolr/Spa-then-Temp: student and teacher under mmcv's names."""
    student, teacher = network(), network("resnet50")
    return {
        "meta": {"iter": 1},
        "state_dict": below("backbone.", mmcv(student)) | below("backbone_t.", mmcv(teacher)),
    }


def student_only() -> Any:
    """Names of mmcv and nothing that tells VFS from Spatial-then-Temporal."""
    return {"meta": {}, "state_dict": below("backbone.", mmcv(network()))}


def moco() -> Any:
    """facebookresearch/moco v2: query and key encoders with their heads, and a queue."""
    query = network("resnet50") | {"fc.0.weight": torch.ones(4, 4), "fc.2.bias": torch.ones(2)}
    key = {name: tensor + 1 for name, tensor in query.items()}
    queue = {"module.queue": torch.ones(2, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    state = queue | below("module.encoder_k.", key) | below("module.encoder_q.", query)
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": {"state": {}}}


def simsiam() -> Any:
    """facebookresearch/simsiam: the projector is the encoder's fc, the predictor stands beside it."""
    encoder = network("resnet50") | {"fc.0.weight": torch.ones(4, 4), "fc.7.running_mean": torch.ones(4)}
    state = below("module.encoder.", encoder) | {"module.predictor.0.weight": torch.ones(2, 4)}
    return {"epoch": 100, "arch": "resnet50", "state_dict": state, "optimizer": {"state": {}}}


def detco() -> Any:
    """OpenSelfSup: backbone, and the momentum encoder's copy of everything."""
    encoder = network("resnet50")
    copies = below("encoder_q.0.", encoder) | below("encoder_k.0.", {k: v + 1 for k, v in encoder.items()})
    neck = {"encoder_q.1.mlp.0.weight": torch.ones(2, 2), "queue": torch.ones(2, 8)}
    return {"meta": {}, "state_dict": copies | neck | below("backbone.", encoder), "optimizer": {"state": {}}}


def detectron() -> Any:
    """detectron2: a pickle of arrays, as the converters of MoCo and DetCo write it."""
    arrays = {name: tensor.numpy() for name, tensor in detectron2(_fc(network("resnet50"))).items()}
    return {"model": arrays, "__author__": "OpenSelfSup", "matching_heuristics": True}


def dino() -> Any:
    """facebookresearch/dino, the backbone alone: torchvision's names without a classifier."""
    return network("resnet50")


def dino_full() -> Any:
    """facebookresearch/dino, a whole checkpoint: the teacher is what is evaluated."""
    teacher = network("resnet50")
    student = {name: tensor + 1 for name, tensor in teacher.items()}
    head = {"module.head.mlp.0.weight": torch.ones(2, 2)}
    return {
        "student": below("module.backbone.", student) | head,
        "teacher": below("module.backbone.", teacher) | head,
        "optimizer": {"state": {}},
        "epoch": 100,
        "args": argparse.Namespace(arch="resnet50"),
    }


def torchvision() -> Any:
    """torchvision: bare, with its classifier."""
    return _fc(network())


@dataclass(frozen=True)
class Case:
    """What a file should become: its family, its settings, and the prefix of the tensors that the encoder uses."""

    content: Callable[[], Any]
    family: str
    architecture: str
    prefix: str
    protocol: str
    strides: tuple[int, int, int, int] = (1, 2, 1, 1)
    padding: str = "zeros"
    stem_pool: bool = True
    colour: str = "rgb"
    reduction: int = 0


CASES: dict[str, Case] = {
    "crw": Case(crw, "crw", "resnet18", "model.encoder.model.", "crw-davis", padding="reflect"),
    "stfc3": Case(stfc3, "stfc3", "resnet18", "encoder.backbone.", "stfc3-davis", padding="reflect"),
    "timecycle": Case(
        timecycle, "timecycle", "resnet50", "state_dict.module.encoderVideo.", "timecycle-davis", reduction=9
    ),
    "vfs": Case(vfs, "vfs", "resnet18", "state_dict.backbone.", "vfs-r18-davis"),
    "stt": Case(
        stt,
        "stt",
        "resnet18",
        "state_dict.backbone.",
        "stt-davis",
        strides=(1, 2, 2, 1),
        stem_pool=False,
        colour="lab",
    ),
    "moco": Case(moco, "moco", "resnet50", "state_dict.module.encoder_q.", "vfs-r50-davis"),
    "simsiam": Case(simsiam, "simsiam", "resnet50", "state_dict.module.encoder.", "vfs-r50-davis"),
    "detco": Case(detco, "detco", "resnet50", "state_dict.backbone.", "vfs-r50-davis"),
    "detectron": Case(detectron, "detco", "resnet50", "model.", "vfs-r50-davis"),
    "dino": Case(dino, "torchvision", "resnet50", "", "vfs-r50-davis"),
    "dino_full": Case(dino_full, "dino", "resnet50", "teacher.module.backbone.", "vfs-r50-davis"),
    "torchvision": Case(torchvision, "torchvision", "resnet18", "", "vfs-r18-davis"),
}
