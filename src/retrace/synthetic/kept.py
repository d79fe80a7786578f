"""`KeptClips`: clips of generated scenes kept on disk, so that several runs that draw the same ones make them once."""

import functools
import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from retrace.errors import RetraceError
from retrace.files import atomic_path
from retrace.synthetic.source import SyntheticSource


class KeptClips:
    """The clips of a `SyntheticSource`, bit for bit, each made once and then read; picklable.

    A clip takes its bytes and 5 KB on the disk, in a file named after all that decides it: the state of the generator
    that it is drawn from, the settings of the source, the code of this package. So runs with other settings share a
    folder without harm, and runs that differ only in what they learn share the clips. Safe for several processes;
    deleting the folder between runs is safe.

    Args:
        source: makes the clips.
        folder: where they are kept; made when missing.
    """

    def __init__(self, source: SyntheticSource, folder: str | Path) -> None:
        """See the class."""
        self.source = source
        self.folder = Path(folder)
        settings = (source.config, source.length, source.strides, source.sampling, source.per_scene)
        self._settings = f"{_code()} {torch.__version__} {settings!r}"

    def clip(self, generator: torch.Generator) -> Tensor:
        """As `SyntheticSource.clip`. Errors: RetraceError when a kept clip cannot be read, or the disk is full."""
        return self._kept("clip", None, generator)["clip"]

    def planned_clip(self, number: int, generator: torch.Generator) -> Tensor:
        """As `SyntheticSource.planned_clip`. Errors: as `clip`."""
        return self._kept("planned", number, generator)["clip"]

    def boxed_clip(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `SyntheticSource.boxed_clip`. Errors: as `clip`, and its own."""
        found = self._kept("boxed", number, generator)
        return found["clip"], found["box"]

    def _kept(self, kind: str, number: int | None, generator: torch.Generator) -> dict[str, Tensor]:
        """What the source gives, and the generator left as the source leaves it."""
        path = self._path(kind, number, generator)
        if path.exists():
            try:
                found = load_file(path)
            except (OSError, SafetensorError) as error:
                raise RetraceError(
                    f"The kept clip {path} cannot be read ({error}). Delete the folder {self.folder}; its clips "
                    "are made again."
                ) from error
            generator.set_state(found.pop("generator"))
            return found
        if kind == "boxed":
            assert number is not None
            clip, box = self.source.boxed_clip(number, generator)
            made = {"clip": clip, "box": box}
        elif number is None:
            made = {"clip": self.source.clip(generator)}
        else:
            made = {"clip": self.source.planned_clip(number, generator)}
        with atomic_path(path) as temporary:
            contents = {name: value.contiguous() for name, value in made.items()}
            save_file({**contents, "generator": generator.get_state()}, temporary)
        return made

    def _path(self, kind: str, number: int | None, generator: torch.Generator) -> Path:
        digest = hashlib.blake2b(generator.get_state().numpy().tobytes(), digest_size=16)
        digest.update(f"{kind} {self._settings}".encode())
        if number is not None and self.source.per_scene > 1:  # which scene it shares
            digest.update(f" {self.source.seed} {number // self.source.per_scene}".encode())
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.safetensors"


@functools.cache
def _code() -> str:
    """Digest of the source files of this package."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
