"""One source's VAE as programs that run without msvae: `torch.export` files for images in, latents and images out."""

import copy
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from msvae.errors import CheckpointError, ConfigError
from msvae.models.alone import SingleVae, alone
from msvae.questions import Asked, model_of
from msvae.source import source_named
from msvae.training.files import write_json

FORMAT_VERSION = 1
PARTS = ("encoder", "decoder", "generator")
TRACED_ROWS, CHECKED_ROWS = 2, 5
TOLERANCE = 1e-4


class _Part(nn.Module):
    """One method of a VAE as a module's `forward`."""

    def __init__(self, vae: SingleVae, method: str) -> None:
        super().__init__()
        self.vae, self.method = vae, method

    def forward(self, values: Tensor) -> Any:
        return getattr(self.vae, self.method)(values)


def export(run: Asked, source: str, out: str | Path) -> Path:
    """Write a source's VAE into a folder: `encoder.pt2`, `decoder.pt2`, `generator.pt2` and `vae.json`.

    `torch.export.load(FILE).module()` opens each, for any number of rows. The encoder takes images in the source's
    value range and gives mean and deviation of their latents; the decoder takes latents, the generator N(0, I) noise.
    Each is checked against the model, on another number of rows, before anything is put in place.

    Returns:
        The folder.

    Raises:
        SourceError: for an unknown source, or a model without a VAE of it alone.
        ConfigError: if the folder exists.
        CheckpointError: if a written program does not answer as the model does, or the disk is full.
    """
    folder = Path(out)
    if folder.exists():
        raise ConfigError(f"{folder} exists; name a new folder.")
    model = model_of(run).cpu().eval()
    vae, form = alone(model, source).eval(), source_named(model.sources, source)
    shapes = {"encoder": form.shape, "decoder": (vae.latent,), "generator": (vae.noise,)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        beside = Path(temporary) / "vae"
        beside.mkdir()
        for part, method in zip(PARTS, ("encode", "decode", "generate"), strict=True):
            _write(_Part(vae, method), form.value_range if part == "encoder" else None, shapes[part], beside, part)
        write_json(
            beside / "vae.json",
            {
                "format_version": FORMAT_VERSION,
                "source": form.to_dict(),
                "latent": vae.latent,
                "noise": vae.noise,
                "torch": torch.__version__,
            },
        )
        shutil.move(beside, folder)
    return folder


def _traced(part: nn.Module, values: Tensor) -> ExportedProgram:
    return torch.export.export(part, (values,), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},), strict=False)


def _with_used_weights(part: nn.Module, program: ExportedProgram) -> nn.Module:
    """A copy without the numbers of weights that the program does not read: those of other sources and parts."""
    read = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    used = {spec.target for spec in program.graph_signature.input_specs if spec.arg.name in read}
    copied = copy.deepcopy(part)
    for name, tensor in [*copied.named_parameters(), *copied.named_buffers()]:
        tensor.data = tensor.data.contiguous().clone() if name in used else tensor.data.new_zeros(1)
    return copied


@torch.no_grad()
def _write(
    part: nn.Module, value_range: tuple[float, float] | None, shape: tuple[int, ...], folder: Path, name: str
) -> None:
    """Trace, save, open again and compare."""
    generator = torch.Generator().manual_seed(0)

    def example(rows: int) -> Tensor:
        if value_range is None:
            return torch.randn(rows, *shape, generator=generator)
        low, high = value_range
        return low + (high - low) * torch.rand(rows, *shape, generator=generator)

    path = folder / f"{name}.pt2"
    program = _traced(_with_used_weights(part, _traced(part, example(TRACED_ROWS))), example(TRACED_ROWS))
    try:
        torch.export.save(program, path)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path.name} could not be written: {error}") from error
    values = example(CHECKED_ROWS)
    found, expected = torch.export.load(path).module()(values), part(values)
    pairs = [(found, expected)] if isinstance(expected, Tensor) else zip(found, expected, strict=True)
    for one, other in pairs:
        if not torch.allclose(one, other, atol=TOLERANCE, rtol=TOLERANCE):
            gap = float((one - other).abs().max())
            raise CheckpointError(f"The exported {name} differs from the model by {gap:.3g}; nothing was written.")
