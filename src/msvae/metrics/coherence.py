"""Do the images of a row show the same thing? Coherence, and what must stand beside it so that it means something."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEAST_CONFIDENCE = 0.5  # below it the verifier is unsure, and the sample counts as incoherent


@dataclass(frozen=True)
class Verdict:
    """What a classifier sees in images.

    Args:
        probabilities: (rows, classes).
        features: (rows, features), its last hidden layer.
    """

    probabilities: Float[Tensor, "rows classes"]
    features: Float[Tensor, "rows features"]

    @property
    def classes(self) -> Int[Tensor, " rows"]:
        return self.probabilities.argmax(dim=1)

    @property
    def confidence(self) -> Float[Tensor, " rows"]:
        return self.probabilities.max(dim=1).values


def conditional_coherence(verdict: Verdict, labels: Int[Tensor, " rows"]) -> float:
    """The share of images that the classifier surely sees as their row's class."""
    return float(((verdict.classes == labels) & (verdict.confidence >= LEAST_CONFIDENCE)).float().mean())


def joint_coherence(verdicts: Sequence[Verdict]) -> float:
    """The share of rows on which the classifiers of all sources surely agree, whatever the class."""
    return float(_agreed(verdicts).float().mean())


def class_entropy(verdicts: Sequence[Verdict]) -> float | None:
    """Entropy of the classes over all images, as a share of its maximum: 1 if all classes are equally frequent.

    Collapsed models agree easily; this figure gives them away. None where there is one class alone.
    """
    classes = torch.cat([verdict.classes for verdict in verdicts])
    count = verdicts[0].probabilities.shape[1]
    if count < 2:
        return None
    share = torch.bincount(classes, minlength=count).double() / len(classes)
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return float(entropy / math.log(count))


def within_class_variance(verdict: Verdict, real: Verdict) -> float | None:
    """Variance of the features within classes as a share of the real images': low for prototypes, above 1 for noise.

    None where no two real images are of one class, or they are all alike.
    """
    theirs = _spread(real)
    return _spread(verdict) / theirs if theirs > 0 else None


def _agreed(verdicts: Sequence[Verdict]) -> Tensor:
    classes = torch.stack([verdict.classes for verdict in verdicts])
    sure = torch.stack([verdict.confidence for verdict in verdicts]) >= LEAST_CONFIDENCE
    return (classes == classes[0]).all(dim=0) & sure.all(dim=0)


def _spread(verdict: Verdict) -> float:
    """Mean squared distance of features to their class's mean, over all classes seen at least twice."""
    features, classes = verdict.features.cpu().double(), verdict.classes.cpu()
    total, rows = 0.0, 0
    for label in classes.unique():
        members: Float[Tensor, "members features"] = features[classes == label]
        if len(members) > 1:
            total += float(members.var(dim=0).sum()) * len(members)
            rows += len(members)
    return total / rows if rows else 0.0
