"""Networks of every kind, for images of any size and channel count."""

import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from conftest import random_batch, tiny_model
from msvae.errors import ConfigError, SourceError
from msvae.models.shared_flow import SharedFlow
from msvae.networks import NETWORKS, SourceNetworks, parts, precision
from msvae.networks.blocks import pyramid
from msvae.source import Source

SHAPES = [(1, 8, 8), (3, 28, 28), (2, 32, 32), (6, 33, 47), (3, 9, 64), (1, 256, 256)]


@pytest.mark.parametrize("kind", list(NETWORKS))
@pytest.mark.parametrize("shape", SHAPES)
def test_any_image_comes_back_in_its_own_shape(kind: str, shape: tuple[int, int, int]) -> None:
    networks = SourceNetworks([Source("x", shape)], 10, 5, kind=kind, width=4)
    values = torch.rand(2, *shape)
    mean, log_variance, _ = networks.encode("x", values)
    assert mean.shape == log_variance.shape == (2, 5)
    assert networks.decode("x", mean).shape == values.shape
    maps = networks.maps("x", values)
    assert (maps is None) == (kind == "mlp")


def test_vectors_go_through_the_fully_connected_pair() -> None:
    networks = SourceNetworks([Source("v", (7,))], 10, 5, kind="mlp", width=4)
    mean, _, _ = networks.encode("v", torch.rand(3, 7))
    assert networks.decode("v", mean).shape == (3, 7)


def test_categorical_sources_enter_one_hot_and_leave_as_logits() -> None:
    source = Source("labels", (1, 8, 8), likelihood="categorical", categories=4)
    networks = SourceNetworks([source], 10, 5, width=4)
    mean, _, _ = networks.encode("labels", torch.randint(0, 4, (3, 1, 8, 8)).float())
    assert networks.decode("labels", mean).shape == (3, 4, 8, 8)


def test_a_shared_trunk_has_fewer_parameters_but_tells_sources_apart() -> None:
    sources = [Source(name, (3, 16, 16)) for name in ("a", "b", "c")]

    def build(shared: bool) -> SourceNetworks:
        return SourceNetworks(sources, 10, 5, width=8, shared_trunk=shared)

    separate, shared = build(False), build(True)

    def size(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert size(shared) < 0.5 * size(separate)
    with torch.no_grad():
        for name, parameter in shared.named_parameters():
            if "table" in name:
                parameter.normal_()
    values = torch.rand(2, 3, 16, 16)
    assert not torch.allclose(shared.encode("a", values)[0], shared.encode("b", values)[0])
    code = torch.randn(2, 5)
    assert not torch.allclose(shared.decode("a", code), shared.decode("b", code))


def test_sources_of_other_shapes_keep_their_own_pair_beside_a_shared_trunk() -> None:
    sources = [Source("a", (3, 16, 16)), Source("b", (3, 16, 16)), Source("c", (1, 8, 8))]
    networks = SourceNetworks(sources, 10, 5, width=4, shared_trunk=True)
    assert networks.trunk_of == {"a": "of_a", "b": "of_a", "c": "of_c"}


def test_any_source_name_is_possible() -> None:
    networks = SourceNetworks([Source("values", (1, 8, 8)), Source("train", (1, 8, 8))], 10, 5, width=4)
    assert networks.encode("values", torch.rand(2, 1, 8, 8))[0].shape == (2, 5)


def test_own_modules_are_copied_so_that_the_users_stay_fresh() -> None:
    encoder, decoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 10)), nn.Linear(5, 16)
    networks = SourceNetworks(
        [Source("a", (1, 4, 4)), Source("b", (1, 4, 4))],
        10,
        5,
        custom={"a": (encoder, decoder), "b": (encoder, decoder)},
    )
    pointers = {parameter.data_ptr() for parameter in networks.parameters()}
    assert len(pointers) == 8
    assert not pointers & {parameter.data_ptr() for parameter in encoder.parameters()}


def test_log_variances_are_bounded_and_always_have_a_gradient() -> None:
    source = Source("x", (1, 4, 4))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    networks = SourceNetworks([source], 10, 5, custom={"x": (encoder, nn.Linear(5, 16))})
    with torch.no_grad():
        networks.encoders["of_x"][1].bias.fill_(20.0)  # type: ignore[index,union-attr]
    _, log_variance, _ = networks.encode("x", torch.rand(2, 1, 4, 4))
    assert float(log_variance.detach().max()) < 12
    log_variance.sum().backward()
    assert float(networks.encoders["of_x"][1].bias.grad[5:].abs().min()) > 0  # type: ignore[index,union-attr]


def test_unknown_likelihoods_name_the_nearest() -> None:
    with pytest.raises(SourceError, match=r"'x'.*Did you mean 'laplace'"):
        SourceNetworks([Source("x", (3, 8, 8), likelihood="laplac")], 10, 5)


def test_own_modules_are_used_and_their_shapes_checked() -> None:
    source = Source("x", (1, 4, 4))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    decoder = nn.Sequential(nn.Linear(5, 16), nn.Unflatten(1, (1, 4, 4)))
    networks = SourceNetworks([source], 10, 5, custom={"x": (encoder, decoder)})
    mean, _, _ = networks.encode("x", torch.rand(3, 1, 4, 4))
    assert networks.decode("x", mean).shape == (3, 1, 4, 4)
    assert networks.maps("x", torch.rand(3, 1, 4, 4)) is None
    wrong = SourceNetworks([source], 10, 5, custom={"x": (encoder, nn.Linear(5, 16))})
    with pytest.raises(SourceError, match=r"'x': its decoder must give \(1, 4, 4\)"):
        wrong.decode("x", mean)
    with pytest.raises(SourceError, match="Did you mean 'x'"):
        SourceNetworks([source], 10, 5, custom={"xx": (encoder, decoder)})


@pytest.mark.parametrize("shape", [(3, 4, 16), (3, 300, 16), (5,)])
def test_shapes_out_of_range_are_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="Source 'x'"):
        SourceNetworks([Source("x", shape)], 10, 5)


def test_unknown_networks_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'residual'"):
        SourceNetworks([Source("x", (3, 8, 8))], 10, 5, kind="residul")


def test_pyramid_rounds_up() -> None:
    assert pyramid(28, 28) == [(28, 28), (14, 14), (7, 7), (4, 4)]


@pytest.mark.parametrize("slow", [torch.float32, torch.bfloat16])
def test_a_cpu_takes_bf16_only_where_it_is_quicker(slow: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def product(rows: torch.Tensor, _: torch.Tensor) -> None:
        time.sleep(0.01 if rows.dtype == slow else 0.001)

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    precision._is_quicker_on_cpu.cache_clear()
    cpu = torch.device("cpu")
    assert precision.prefers_bf16(cpu) == (slow == torch.float32)
    with precision.autocast_for(cpu, "auto"):
        assert torch.is_autocast_enabled("cpu") == (slow == torch.float32)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert not precision.prefers_bf16(cpu)
    precision._is_quicker_on_cpu.cache_clear()


@pytest.mark.parametrize("method", ["poe", "flow"])
def test_questions_are_answered_in_parts(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows at a time, also of sources that share a trunk; what is answered is the same."""
    model = tiny_model(method, [Source(name, (3, 8, 8)) for name in ("blue", "green")], shared_trunk=True).eval()
    batch = random_batch(model, rows=5)
    code = torch.randn(5, model.code_length if isinstance(model, SharedFlow) else model.draw(1).shape[1])
    most: list[int] = []

    def asked() -> list[torch.Tensor]:
        most.clear()
        with torch.no_grad():
            features = model.features(batch)
            images = model.decode(code, mode="mean").values
        return [features.pooled, *features.maps.values(), *images.values()]

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, inputs, output: most.append(len(output)))
    whole = asked()
    assert max(most) >= 5
    monkeypatch.setattr(parts, "VALUES_AT_ONCE", 2 * 3 * 8 * 8)
    in_parts = asked()
    assert max(most) == 2
    for one, other in zip(whole, in_parts, strict=True):
        torch.testing.assert_close(one, other)


def test_numbers_that_are_too_small_are_none_while_training() -> None:
    """In all threads that begin to work within, and as before afterwards."""
    program = """
import torch
from msvae.networks.precision import flushed_denormals

def left():
    return int((torch.full((1_000_000,), 1e-20) * torch.full((1_000_000,), 1e-20) != 0).sum())

torch.set_num_threads(2)
with flushed_denormals():
    with flushed_denormals():
        pass
    inside = left()
print(inside, float(torch.tensor(1e-20) * 1e-20) > 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    if torch.set_flush_denormal(False):  # what the processor can
        assert done.stdout.split() == ["0", "True"]
