"""What `torch.vmap` makes of operators that have an outermost dimension of groups: more groups."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def in_groups(info: Any, dims: tuple[int | None, ...], arguments: tuple[Any, ...]) -> list[Any]:
    """Make the mapped dimension of all tensors the outermost of the groups: `(V, G, …)` → `(V·G, …)`."""

    def folded(tensor: Any, dim: int | None) -> Any:
        if not isinstance(tensor, Tensor):
            return tensor
        tensor = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        return tensor.flatten(0, 1)

    return [folded(tensor, dim) for tensor, dim in zip(arguments, dims, strict=True)]


def out_of_groups(info: Any, results: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Make the mapped dimension one of its own again, the first, as a rule for `torch.vmap` returns it."""
    several = tuple(
        result.unflatten(0, (info.batch_size, -1)) if result.dim() > 1 else result.expand(info.batch_size, 0)
        for result in results
    )
    return several, (0,) * len(several)
