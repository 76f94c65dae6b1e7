"""One source's VAE as programs that run without msvae: `torch.export` files for images in, latents and images out."""

import copy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from msvae.errors import CheckpointError, ConfigError
from msvae.files import unambiguous, write_folder, write_json
from msvae.models.alone import SingleVae, alone
from msvae.questions import Asked, model_of
from msvae.source import source_named

FORMAT_VERSION = 1
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
    Each is checked against the model, on another number of rows, before anything is put in place. The model itself is
    left as it is.

    Returns:
        The folder.

    Raises:
        SourceError: for an unknown source, or a model without a VAE of it alone.
        ConfigError: if the folder exists.
        CheckpointError: if a written program does not answer as the model does, or cannot be made, or the disk is full.
    """
    folder = unambiguous(out)
    if folder.exists():
        raise ConfigError(f"{folder} exists; name a new folder.")
    model = copy.deepcopy(model_of(run)).cpu().eval()
    vae, form = alone(model, source).eval(), source_named(model.sources, source)
    low, high = form.value_range
    images = _Numbers(form.shape, low, high)

    def fill(beside: Path) -> None:
        _write(_Part(vae, "encode"), images, 1.0, beside / "encoder.pt2")
        _write(_Part(vae, "decode"), _Numbers((vae.latent,)), high - low, beside / "decoder.pt2")
        _write(_Part(vae, "generate"), _Numbers((vae.noise,)), high - low, beside / "generator.pt2")
        sizes = {"latent": vae.latent, "noise": vae.noise}
        described = {"format_version": FORMAT_VERSION, "source": form.to_dict(), **sizes, "torch": torch.__version__}
        write_json(beside / "vae.json", described)

    write_folder(folder, fill)
    return folder


@dataclass(frozen=True)
class _Numbers:
    """What a program reads: uniform numbers of a range, or normal ones without it."""

    shape: tuple[int, ...]
    low: float | None = None
    high: float = 0.0

    def rows(self, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(count)
        if self.low is None:
            return torch.randn(count, *self.shape, generator=generator)
        return self.low + (self.high - self.low) * torch.rand(count, *self.shape, generator=generator)


def _traced(part: nn.Module, values: Tensor) -> ExportedProgram:
    return torch.export.export(part, (values,), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},), strict=False)


def _with_used_weights(part: nn.Module, program: ExportedProgram) -> nn.Module:
    """A copy without the numbers of weights that the program does not read: those of other sources and parts."""
    read = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    used = {spec.target for spec in program.graph_signature.input_specs if spec.arg.name in read}
    copied = copy.deepcopy(part)
    names: dict[int, list[str]] = {}  # of each tensor: tied weights have several
    tensors = [*copied.named_parameters(remove_duplicate=False), *copied.named_buffers(remove_duplicate=False)]
    for name, tensor in tensors:
        names.setdefault(id(tensor), []).append(name)
    for _, tensor in tensors:
        read_somewhere = not used.isdisjoint(names[id(tensor)])
        tensor.data = tensor.data.contiguous().clone() if read_somewhere else tensor.data.new_zeros(1)
    return copied


@torch.no_grad()
def _write(part: nn.Module, numbers: _Numbers, unit: float, path: Path) -> None:
    """Trace, save, open again and compare; `unit`: that the answers are in."""
    values = numbers.rows(TRACED_ROWS)
    try:
        program = _traced(_with_used_weights(part, _traced(part, values)), values)
        written = BytesIO()
        torch.export.save(program, written)  # straight to a file, a full disk would end the process
    except Exception as error:  # whatever a user's own networks make the tracer raise
        raise CheckpointError(f"{path.name} cannot be made of this network: {error}") from error
    path.write_bytes(written.getbuffer())
    values = numbers.rows(CHECKED_ROWS)
    found, expected = torch.export.load(path).module()(values), part(values)
    pairs = [(found, expected)] if isinstance(expected, Tensor) else zip(found, expected, strict=True)
    for one, other in pairs:
        gap = float((one - other).abs().max()) / unit
        if not gap <= TOLERANCE * max(1.0, float(other.abs().max()) / unit):
            raise CheckpointError(f"{path.name} differs from the model by {gap:.3g}; nothing was written.")
