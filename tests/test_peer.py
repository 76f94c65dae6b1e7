"""The peer on our networks and before our judges; runs only where PyPI `multivae` is installed."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("multivae") is None, reason="needs the peer"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.mark.parametrize("method", ["mvae", "mopoe", "mvtcae", "jmvae", "mmvae", "mmvae+"])
def test_both_sides_have_the_same_loss(method: str) -> None:
    from losses_against_peer import compare
    from peer.pairing import import_peer, pair

    import_peer()
    peer, ours, error, divergence = compare(pair(method, spread=30.0), draws=6)
    assert abs(peer - ours) < 5 * error + 2e-5 * abs(peer)
    assert abs(divergence) > 1


@pytest.mark.parametrize("method", ["mvtcae", "mopoe", "mmvae-k1"])
def test_the_adapter_answers_our_questions(method: str) -> None:
    from peer.adapter import PeerModel
    from peer.pairing import import_peer
    from peer.published import published

    from msvae.benchmarking.speed import random_rows
    from msvae.source import Source

    import_peer()
    names = ["m0", "m1", "m2"]
    torch.manual_seed(0)
    model = PeerModel([Source(name, (3, 28, 28)) for name in names], published()[method].build(names))
    rows = random_rows(3, 5)
    drawn = [model.sample(rows.select(["m0", "m2"]), ["m1"], generator=_seeded()).values["m1"] for _ in range(2)]
    assert drawn[0].shape == (5, 3, 28, 28)
    assert torch.equal(*drawn)
    alone = model.sample(rows.select(["m1"]), ["m0"], mode="mean").values["m0"]
    changed = {**rows.values, "m2": 1 - rows.values["m2"]}
    rows.values.update(changed)  # what is not given has no influence
    assert torch.equal(alone, model.sample(rows.select(["m1"]), ["m0"], mode="mean").values["m0"])
    assert model.encode(rows).mean.shape == (5, 512)
    made = model.decode(model.draw(4, _seeded(), from_prior=True), None, "sample", _seeded())
    assert made.values["m2"].shape == (4, 3, 28, 28)
    assert not model.has_fitted_sampler


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)
