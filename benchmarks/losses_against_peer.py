"""Are the losses of both sides the same? Equal networks, weights and rows; means over many draws of the codes.

    python benchmarks/losses_against_peer.py [--stubs FOLDER] [--draws 100]

The peer's MMVAE and MMVAE+ sum over the rows of a batch; its other losses, and all of ours, are means per row. Its
MoPoE counts the prior as an expert in the subset of all sources alone, and ours in every subset or in none: both are
set to none here. It gives each subset a block of rows, so rows are shuffled before each draw, and there are as many of
them as makes the blocks equal. Fresh encoders are nearly the prior; their means are scaled up, so that experts differ.
"""

import argparse
import copy
import math
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from peer.pairing import Pairing, import_peer, known_methods, pair

from msvae.benchmarking.speed import random_rows

ROWS = 62  # a multiple of the 31 subsets of five sources
DIVERGENCES = ("kl", "disagreement")  # our names of them
SPREAD = 30.0  # divergences are then a good part of the loss
LARGEST_DEVIATION = 4.0  # standard errors of the difference
RELATIVE_SLACK = 2e-5  # of the loss: 32-bit sums, the soft bound of our log-variances


def compare(pairing: Pairing, draws: int, missing: float = 0.0) -> tuple[float, float, float, float]:
    """Mean losses per row of the peer and of ours, the standard error of their difference, and our divergences."""
    torch.manual_seed(1)
    losses: dict[str, list[float]] = {"peer": [], "ours": []}
    divergences: list[float] = []
    batch = random_rows(5, ROWS, missing)
    with torch.no_grad():
        for _ in range(draws):
            rows = batch.rows(torch.randperm(ROWS))
            loss = pairing.ours.loss(rows)
            losses["ours"].append(float(loss.total))
            divergences.append(sum(float(loss.terms[name]) for name in DIVERGENCES if name in loss.terms))
            losses["peer"].append(float(pairing.peer_loss(copy.deepcopy(rows))) / pairing.divisor(ROWS))
    peer, ours = (torch.tensor(losses[side], dtype=torch.float64) for side in ("peer", "ours"))
    error = math.sqrt((float(peer.var()) + float(ours.var())) / draws)
    return float(peer.mean()), float(ours.mean()), error, sum(divergences) / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stubs", type=Path, help="folder of stand-ins for what the peer imports")
    parser.add_argument("--draws", type=int, default=100)
    arguments = parser.parse_args()
    import_peer(arguments.stubs)
    failed = False
    print("| method | peer | ours | difference | standard error | KL |\n| --- | --- | --- | --- | --- | --- |")
    cases = [(method, 1) for method in known_methods()] + [(m, 3) for m in ("mmvae", "mmvae+") if m in known_methods()]
    for method, samples in cases:
        peer, ours, error, divergence = compare(pair(method, samples=samples, spread=SPREAD), arguments.draws)
        agrees = abs(peer - ours) <= LARGEST_DEVIATION * error + RELATIVE_SLACK * abs(peer)
        failed |= not agrees
        label = method if samples == 1 else f"{method}, K = {samples}"
        cells = [label, f"{peer:.3f}", f"{ours:.3f}", f"{ours - peer:+.4f}", f"{error:.4f}", f"{divergence:.2f}"]
        print(f"| {' | '.join(cells)} |{'' if agrees else ' DIFFERS'}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
