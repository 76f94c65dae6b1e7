"""Stage B: the code that all sources of a row share."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from msvae.data.augment import shifted
from msvae.flow.autoencoders import in_their_rows, present_values
from msvae.flow.coded import CodeEvidence
from msvae.networks.spatial import MapNetworks
from msvae.source import Source, SourceBatch
from msvae.subsets import random_half, rows_of_each

TEMPERATURE = 0.1
LOGIT_LIMIT = 2.0  # the surest source counts at most e^4 times as much as the least sure one


class Content(nn.Module):
    """Each source's own code (a token per slot, of length sqrt(size)) and evidence logits; softmax pooling over them.

    One slot is a code vector for class-like content; grid x grid slots keep where things are, for scene-like content.

    Args:
        networks: encoders alone; their maps feed the heads.
        size: numbers of a token.
        grid: side of the grid of slots.
        latent_sizes: latents of each source, which the codes of the others predict.
        shift: pixels by which images move at random while training.
        contrast, prediction: weights of the two terms of the loss.
        detached: whether a source's latents are predicted from the others alone, so that its own code is not asked to
            hold what only it can know.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        networks: MapNetworks,
        size: int,
        grid: int,
        latent_sizes: dict[str, int],
        shift: int,
        contrast: float = 1.0,
        prediction: float = 0.5,
        detached: bool = True,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        self.names = tuple(source.name for source in sources)
        self.networks, self.size, self.grid, self.shift = networks, size, grid, shift
        self.contrast, self.prediction, self.detached = contrast, prediction, detached
        self.heads, self.evidences, self.predictors = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for name in self.names:
            inputs = networks.size(name) if grid == 1 else networks.map_shape[name][0]
            self.heads[f"of_{name}"] = nn.Linear(inputs, size)
            self.evidences[f"of_{name}"] = _zeroed(nn.Linear(inputs, 1))  # at first all sources count alike
            self.predictors[f"of_{name}"] = nn.Sequential(
                nn.Linear(self.slots * size, hidden), nn.SiLU(), nn.Linear(hidden, latent_sizes[name])
            )

    @property
    def slots(self) -> int:
        return self.grid * self.grid

    def evidence(self, batch: SourceBatch, moved: bool = False, generator: Generator | None = None) -> CodeEvidence:
        """What each present image says; absent ones are not read.

        Args:
            moved: whether images are moved at random first, to train on.
        """
        images = present_values(batch, self.names)
        if moved:
            images = {name: shifted(values, self.shift, generator) for name, values in images.items()}
        maps = self.networks.encode(images)
        blank = torch.zeros(len(batch), self.slots, self.size + 1, device=batch.device)
        read = {name: self._read(name, found) for name, found in maps.items()}
        numbers = torch.stack(list(in_their_rows(read, batch, dict.fromkeys(self.names, blank)).values()))
        return CodeEvidence(numbers[..., : self.size], numbers[..., self.size], batch.presence(self.names))

    @torch.no_grad()
    def begin_with(self, networks: MapNetworks) -> None:
        """Take over the layers of trained encoders that fit: what sees edges and strokes need not be learned twice."""
        known = networks.encoders.state_dict()
        for name, weight in self.networks.encoders.state_dict().items():
            if name in known and known[name].shape == weight.shape:
                weight.copy_(known[name])

    def _read(self, name: str, maps: Tensor) -> Float[Tensor, "rows slots numbers"]:
        maps = F.silu(maps)
        if self.grid == 1:
            cells = maps.flatten(1)[:, None]
        else:
            cells = F.interpolate(maps, (self.grid, self.grid), mode="bilinear").flatten(2).transpose(1, 2)
        tokens = on_sphere(self.heads[f"of_{name}"](cells).float())
        # A token's length is lost, so nothing holds that of the features, on which the logits must not depend.
        evidence = self.evidences[f"of_{name}"](F.layer_norm(cells, cells.shape[-1:]) / math.sqrt(cells.shape[-1]))
        return torch.cat([tokens, LOGIT_LIMIT * torch.tanh(evidence.float() / LOGIT_LIMIT)], dim=-1)

    def loss(
        self, evidence: CodeEvidence, latents: dict[str, Tensor], generator: Generator | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-source contrast and target-detached prediction (methods: IDMVAE, MUNITE)."""
        present = evidence.present
        two = torch.tril_indices(len(present), len(present), -1)  # every two sources
        first, second = two.to(present.device)
        several = present.sum(dim=0) > 1
        *rows_of_pairs, rows_of_several = rows_of_each(torch.cat([present[first] & present[second], several[None]]))
        pairs = []
        for (one, other), rows in zip(two.T.tolist(), rows_of_pairs, strict=True):
            if rows is None or len(rows) > 1:
                tokens = evidence.tokens if rows is None else evidence.tokens[:, rows]
                pairs.append(contrast(tokens[one], tokens[other]))
        part = random_half(present, generator)
        if rows_of_several is None or len(rows_of_several) > 1:
            half, rest = (pooled(evidence.restricted(side).rows(rows_of_several)) for side in (part, ~part))
            pairs.append(contrast(half, rest))
        nothing = evidence.tokens.sum() * 0.0
        between = torch.stack(pairs).mean() if pairs else nothing
        predicted = [nothing]
        everyone = torch.eye(len(present), dtype=torch.bool, device=present.device)
        used = present & ~(everyone[:, :, None] & self.detached)  # the sources that each one is predicted from
        for index, (name, rows) in enumerate(zip(self.names, rows_of_each(present & used.any(dim=1)), strict=True)):
            if rows is None or len(rows):
                code = pooled(evidence.restricted(used[index]).rows(rows)).flatten(1)
                guess = self.predictors[f"of_{name}"](code).float()
                wanted = latents[name] if rows is None else latents[name][rows]
                predicted.append((guess - wanted.detach()).square().mean())
        prediction = torch.stack(predicted).sum() / max(1, len(predicted) - 1)
        return self.contrast * between + self.prediction * prediction, {
            "contrast": between.detach(),
            "prediction": prediction.detach(),
        }


def _zeroed(layer: nn.Linear) -> nn.Linear:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def on_sphere(tokens: Float[Tensor, "*rows size"]) -> Float[Tensor, "*rows size"]:
    """Tokens of length sqrt(size), so that their numbers have mean square 1; zeros stay zeros."""
    return F.normalize(tokens, dim=-1, eps=1e-6) * math.sqrt(tokens.shape[-1])


def pooled(
    evidence: CodeEvidence, log_weights: Float[Tensor, "sources rows"] | None = None
) -> Float[Tensor, "rows slots size"]:
    """sum_m softmax_m(logit_m + log a_m) token_m over the present sources, back on the sphere; zeros without any.

    A weight a_m of 0 removes a source exactly; the only source with weight is its own code.
    """
    logits = evidence.logits.masked_fill(~evidence.present[..., None], -math.inf)
    if log_weights is not None:
        logits = logits + log_weights[..., None]
    nothing = torch.isneginf(logits).all(dim=0, keepdim=True)
    shares = torch.softmax(logits.masked_fill(nothing, 0.0), dim=0).masked_fill(nothing, 0.0)
    return on_sphere((shares[..., None] * evidence.tokens).sum(dim=0))


def contrast(
    first: Float[Tensor, "rows slots size"], second: Float[Tensor, "rows slots size"], temperature: float = TEMPERATURE
) -> Float[Tensor, ""]:
    """InfoNCE in both directions: the codes of one row against those of all others, by their mean cosine.

    L = -1/2 mean_i [log softmax_j(s_ij / T)_i + log softmax_j(s_ji / T)_i] (van den Oord et al. 2018, arXiv
    1807.03748).
    """
    similarity = first.flatten(1) @ second.flatten(1).T / (first.shape[1] * first.shape[2] * temperature)
    target = torch.arange(len(first), device=first.device)
    return 0.5 * (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target))
