"""A device that is not there: tensors that say they are elsewhere and refuse the company of CPU tensors.

Their numbers lie on the CPU, inside; they call themselves `meta`, the only device besides the CPU that every build of
PyTorch knows. So a model can be asked on a machine without any GPU whether it would mix devices on one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

ELSEWHERE = torch.device("meta")
PLAIN_GENERATOR, AUTOCAST = torch.Generator, torch.autocast
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


def is_elsewhere(device: Any) -> bool:
    return device is not None and torch.device(device).type == ELSEWHERE.type


def inside(value: Any) -> Any:
    return value.numbers if isinstance(value, Distant) else value


class Distant(torch.Tensor):
    """A tensor elsewhere. CPU tensors of one number may meet it, and CPU indices may index it, as on a GPU.

    It never has float64, which Apple's GPUs lack.
    """

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor, requires_grad: bool = False) -> "Distant":
        if numbers.dtype == torch.float64:
            raise TypeError("float64 elsewhere")
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=ELSEWHERE,
            requires_grad=requires_grad,
        )

    def __init__(self, numbers: Tensor, requires_grad: bool = False) -> None:
        self.numbers = numbers

    def __repr__(self) -> str:
        return f"Distant{tuple(self.shape)}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        flat, _ = tree_flatten((args, kwargs))
        distant = [value for value in flat if isinstance(value, Distant)]
        near = [value for value in flat if isinstance(value, Tensor) and not isinstance(value, Distant)]
        indices = func in INDEXING and isinstance(args[0], Distant)
        if distant and func not in COPIES and not indices and any(value.dim() > 0 for value in near):
            raise RuntimeError(f"{func}: tensors on two devices")
        comes_here = func is aten._to_copy.default and not is_elsewhere(kwargs.get("device", ELSEWHERE))
        if is_elsewhere(kwargs.get("device")):
            kwargs["device"] = torch.device("cpu")
        found = func(*tree_map(inside, args), **tree_map(inside, kwargs))
        known = {id(value.numbers): value for value in distant} | {id(value): value for value in near}

        def wrapped(value: Any) -> Any:
            if not isinstance(value, Tensor) or comes_here:
                return value
            return known.get(id(value)) if id(value) in known else Distant(value)

        return tree_map(wrapped, found)


class _Elsewhere(TorchFunctionMode):
    """Makes tensors elsewhere where they are asked for there; refuses generators of the other device."""

    def __init__(self, generators: dict[int, tuple[Any, bool]]) -> None:
        super().__init__()
        self.generators = generators

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        special = getattr(self, f"_{name.strip('_')}", None)
        answer = NotImplemented if special is None else special(func, args, kwargs)
        if answer is not NotImplemented:
            return answer
        flat, _ = tree_flatten(args)
        there = is_elsewhere(kwargs.get("device")) or any(isinstance(value, Distant) for value in flat)
        generator = kwargs.get("generator")
        if there and generator is not None and not self.generators.get(id(generator), (None, False))[1]:
            raise RuntimeError(f"{name}: a generator of the CPU for a tensor elsewhere")
        if not is_elsewhere(kwargs.get("device")):
            return func(*args, **kwargs)
        made = func(*args, **{**kwargs, "device": "cpu"})
        return tree_map(lambda value: Distant(value) if isinstance(value, Tensor) else value, made)

    def _to(self, func: Any, args: Any, kwargs: Any) -> Any:
        named = [*args[1:], kwargs.get("device"), kwargs.get("other")]
        devices = [value.device if isinstance(value, Tensor) else value for value in named]
        devices = [value for value in devices if isinstance(value, str | torch.device)]
        if not devices or not is_elsewhere(devices[-1]) or isinstance(args[0], Distant):
            return NotImplemented
        others = [value.dtype if isinstance(value, Tensor) else value for value in args[1:]]
        others = [value for value in others if not isinstance(value, str | torch.device)]
        kept = {key: value for key, value in kwargs.items() if key not in ("device", "other")}
        return Distant(args[0].to(*others, **kept) if others or kept else args[0])

    def _tolist(self, func: Any, args: Any, kwargs: Any) -> Any:
        return args[0].numbers.tolist() if isinstance(args[0], Distant) else NotImplemented

    def _one_hot(self, func: Any, args: Any, kwargs: Any) -> Any:
        return Distant(func(inside(args[0]), *args[1:], **kwargs)) if isinstance(args[0], Distant) else NotImplemented

    def _setitem(self, func: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(args[0], Distant) or args[0].requires_grad:
            return NotImplemented
        with torch.no_grad():
            args[0].numbers[tree_map(inside, args[1])] = inside(args[2])
        return None

    def _where(self, func: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(args[0], Distant) or all(isinstance(value, Tensor) for value in args):
            return NotImplemented
        filled = [
            value if isinstance(value, Tensor) else Distant(torch.full(args[0].shape, float(value)))
            for value in args[1:]
        ]
        return func(args[0], *filled)

    def _cosine_similarity(self, func: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(args[0], Distant):
            return NotImplemented
        first, second = args[:2]
        lengths = first.square().sum(dim=1) * second.square().sum(dim=1)
        return (first * second).sum(dim=1) / lengths.sqrt().clamp_min(1e-8)


@contextmanager
def elsewhere(monkeypatch: Any) -> Iterator[None]:
    """Within it `meta` is the device of the module's text. Nothing is computed in reduced precision."""
    generators: dict[int, tuple[Any, bool]] = {}

    def generator(device: Any = "cpu") -> Any:
        made = PLAIN_GENERATOR()
        generators[id(made)] = (made, is_elsewhere(device))  # kept, so that its id stays its own
        return made

    with monkeypatch.context() as patch, _Elsewhere(generators):
        patch.setattr(torch, "Generator", generator)
        patch.setattr(torch, "autocast", lambda *_, **__: AUTOCAST("cpu", enabled=False))
        yield


def moved(model: nn.Module) -> Any:
    """The model, elsewhere."""
    known: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                known.setdefault(id(parameter), nn.Parameter(Distant(parameter.data), parameter.requires_grad))
                module._parameters[name] = known[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Distant(buffer)
    return model
