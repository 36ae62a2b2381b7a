"""The bins over which a value is distributed: shared by labels, head, loss and decoding."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldlcam._check import check_number, check_positive, check_tensor
from ldlcam._precision import upcast


class Bins(nn.Module):
    """Bins of a scale such as age: their centres and edges, in one unit.

    One object is shared by labels, head, loss and decoding, so an offset between them cannot
    arise. It has no parameters. `centers` (K,) and `edges` (K + 1,) are float32 buffers: they
    move with the model, stay float32 when the model is cast to another dtype, and are saved in
    its `state_dict`; loading a `state_dict` of other bins is an error (their unit is not saved).
    `first` and `last` are the end centres, `widest_step` is the largest distance between two
    neighbouring centres, `narrowest` the width of the narrowest bin, `unit` the unit's name, and
    `uniform` tells whether all bins are equally wide.

    Two bins are equal if their centres, edges and unit are.

    Args:
        first: Centre of the first bin.
        last: Centre of the last bin, included; a whole number of steps above `first`.
        step: Distance between the centres.
        unit: Name of the unit, such as `"months"`; it is printed and compared.

    Raises:
        ValueError: If `step` is not above 0, or `last` is not one or more whole steps above
            `first`.

    Example:
        >>> from ldlcam import Bins
        >>> bins = Bins(1, 240, unit="months")
        >>> bins
        Bins(1, 240, step=1, unit='months')
        >>> len(bins), bins.edges[0].item(), bins.edges[-1].item()
        (240, 0.5, 240.5)
    """

    centers: Tensor
    edges: Tensor

    def __init__(self, first: float, last: float, step: float = 1.0, *, unit: str = "") -> None:
        super().__init__()
        check_number("first", first)
        check_number("last", last)
        check_positive("step", step)
        first, last, step = float(first), float(last), float(step)
        steps = (last - first) / step
        if not (math.isfinite(steps) and steps > 0.5 and abs(steps - round(steps)) < 1e-6 * steps):
            raise ValueError(
                f"last: expected one or more whole steps of {step:g} above first = {first:g}, "
                f"got {last:g}"
            )
        halves = torch.arange(2 * round(steps) + 3, dtype=torch.float64, device="cpu") - 1
        grid = first + halves * step / 2
        self._define(grid[1::2], grid[::2], unit, uniform=True)

    @classmethod
    def from_centers(
        cls,
        centers: Sequence[float] | Tensor,
        *,
        unit: str = "",
        edges: Sequence[float] | Tensor | None = None,
    ) -> "Bins":
        """Make bins of any centres, equally spaced or not.

        Args:
            centers: Centres (K,), increasing, K at least 2, in the unit.
            unit: Name of the unit.
            edges: Edges (K + 1,), increasing, each centre between its own two; by default midway
                between the centres, and the end bins as wide to the outside as to the inside.

        Returns:
            The bins.

        Raises:
            ValueError: If there are fewer than two centres, their number and that of the edges
                do not fit, or either are not finite and increasing.

        Example:
            >>> from ldlcam import Bins
            >>> bins = Bins.from_centers([0, 1, 2, 4, 8], unit="years")
            >>> bins.edges
            tensor([-0.5000,  0.5000,  1.5000,  3.0000,  6.0000, 10.0000])
            >>> bins.uniform
            False
        """
        exact = torch.as_tensor(centers, dtype=torch.float64, device="cpu").detach()
        check_tensor("centers", exact, "K")
        if len(exact) < 2 or not _increasing(exact):
            raise ValueError(
                f"centers: expected two or more finite, increasing numbers, got {exact.tolist()}"
            )
        if edges is None:
            halves = exact.diff() / 2
            bounds = torch.cat(
                [exact[:1] - halves[:1], exact[:-1] + halves, exact[-1:] + halves[-1:]]
            )
        else:
            bounds = torch.as_tensor(edges, dtype=torch.float64, device="cpu").detach()
            check_tensor("edges", bounds, str(len(exact) + 1))
            around = (bounds[:-1] <= exact) & (exact <= bounds[1:])
            if not (_increasing(bounds) and bool(around.all())):
                raise ValueError(
                    "edges: expected finite, increasing numbers with each centre between its own "
                    f"two, got {bounds.tolist()}"
                )
        widths = bounds.diff()
        spacings = exact.diff()
        tolerance = 1e-6 * widths[0]
        uniform = bool(
            ((widths - widths[0]).abs() < tolerance).all()
            and ((spacings - widths[0]).abs() < tolerance).all()
        )
        bins = cls.__new__(cls)
        nn.Module.__init__(bins)
        bins._define(exact, bounds, unit, uniform=uniform)
        return bins

    def _define(self, centers: Tensor, edges: Tensor, unit: str, *, uniform: bool) -> None:
        if not (_increasing(centers.float()) and _increasing(edges.float())):
            raise ValueError(
                f"bins: expected steps that float32 can tell apart, got {len(centers)} centers "
                f"from {centers[0].item():.9g} to {centers[-1].item():.9g}"
            )
        # The exact values live outside of the buffers: casting the model to half precision, or
        # creating it on the meta device, must not lose them.
        self._exact = (centers.contiguous(), edges.contiguous())
        self.unit = unit
        self.uniform = uniform
        self.first = centers[0].item()
        self.last = centers[-1].item()
        self.widest_step = centers.diff().max().item()
        self.narrowest = edges.diff().min().item()
        device = torch.get_default_device()
        self.register_buffer("centers", centers.to(device, torch.float32))
        self.register_buffer("edges", edges.to(device, torch.float32))

    def centers_as(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Centres (K,) in a dtype (exact in float64) and on a device, in the unit."""
        return self._constant(0, dtype, device)

    def edges_as(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Edges (K + 1,) in a dtype (exact in float64) and on a device, in the unit."""
        return self._constant(1, dtype, device)

    def _constant(self, place: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        buffer = self.edges if place else self.centers
        # Buffers spare a copy to the device, and are what a compiler knows of. They are no more
        # than that: FSDP rounds them in place, and functional calls put others there.
        eager_on_cpu = device.type == "cpu" and not torch.compiler.is_compiling()
        if dtype == torch.float64 or buffer.dtype != torch.float32 or eager_on_cpu:
            return self._exact[place].to(device, dtype)
        return buffer.to(device, dtype)

    def reset_parameters(self) -> None:
        """Give the buffers their values; FSDP asks for it of modules made on the meta device."""
        for buffer, exact in zip((self.centers, self.edges), self._exact, strict=True):
            buffer.copy_(exact)

    def index(self, values: Tensor) -> Tensor:
        """Index of the bin of each value; where edges are midway, that of the nearest centre.

        Args:
            values: Values of any shape, in the unit. Those outside are in the end bins; one on an
                edge is in the bin above it.

        Returns:
            Indices of the same shape, int64; -1 for NaN.

        Example:
            >>> import torch
            >>> from ldlcam import Bins
            >>> Bins(1, 240).index(torch.tensor([1.0, 1.5, 300.0, float("nan")]))
            tensor([  0,   1, 239,  -1])
        """
        check_tensor("values", values, dtype="real")
        values = upcast(values).contiguous()
        inner = self.edges_as(values.dtype, values.device)[1:-1]
        found = torch.bucketize(values, inner, right=True)
        return torch.where(values.isnan(), -1, found)

    def __len__(self) -> int:
        return len(self._exact[0])

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Bins):
            return NotImplemented
        return (
            len(self) == len(other)
            and self.unit == other.unit
            and all(_same(mine, its) for mine, its in zip(self._exact, other._exact, strict=True))
        )

    # Modules are kept in sets when a model is walked through: two equal bins in one model are two
    # modules there, so the hash is the identity's, as it is for tensors.
    __hash__ = nn.Module.__hash__

    def extra_repr(self) -> str:
        """Ends, step and unit, for `repr`."""
        unit = f", unit={self.unit!r}" if self.unit else ""
        if self.uniform:
            step = (self.last - self.first) / (len(self) - 1)
            return f"{self.first:g}, {self.last:g}, step={step:g}{unit}"
        return f"{len(self)} centers from {self.first:g} to {self.last:g}{unit}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Bins":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.centers = self._exact[0].to(self.centers.device, torch.float32)
        self.edges = self._exact[1].to(self.edges.device, torch.float32)
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # Of their own: one object is shared by head and loss, and files of tensors refuse names
        # that share memory.
        for name, exact in zip(("centers", "edges"), self._exact, strict=True):
            saved = destination[prefix + name]
            if not saved.is_meta:
                destination[prefix + name] = exact.to(saved.device, torch.float32)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        names = ("centers", "edges")
        if strict:
            own = {prefix + name for name in names}
            others = (key for key in state_dict if key.startswith(prefix) and key not in own)
            unexpected_keys += others
        for name, exact in zip(names, self._exact, strict=True):
            key = prefix + name
            if key not in state_dict:
                missing_keys.append(key)
            elif not _is_saved(exact, state_dict[key]):
                saved = state_dict[key]
                got = f"a tensor {tuple(saved.shape)}"
                if saved.dim() == 1 and len(saved):
                    got = f"{len(saved)} from {saved[0].item():g} to {saved[-1].item():g}"
                error_msgs.append(
                    f"{key}: expected those of {self!r}, got {got}: the model was saved with "
                    "other bins"
                )
            elif local_metadata.get("assign_to_params_buffers", False):
                # A model made on the meta device gets its values here.
                setattr(self, name, exact.to(state_dict[key].device, torch.float32))


def check_bins(value: object, name: str = "bins") -> None:
    """Check that an argument is one.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(value, Bins):
        raise TypeError(f"{name}: expected a Bins, got {type(value).__name__}")


def _increasing(values: Tensor) -> bool:
    return bool(values.isfinite().all() and (values.diff() > 0).all())


def _is_saved(exact: Tensor, saved: Tensor) -> bool:
    """The same, whatever it was rounded to before it was saved."""
    return _same(exact, saved) or any(
        torch.equal(exact.to(dtype).float(), saved.to("cpu", torch.float32))
        for dtype in (torch.bfloat16, torch.float16)
    )


def _same(mine: Tensor, other: Tensor) -> bool:
    """Equal up to the rounding of float32 and of the dtype in which the other was saved."""
    if mine.shape != other.shape:
        return False
    rounded = mine.to(torch.float32).to(other.dtype).to(torch.float64)
    gaps = (rounded - other.to("cpu", torch.float64)).abs()
    tolerance = torch.minimum(1e-6 * mine.abs().max(), 1e-3 * mine.diff().min())
    return bool((gaps <= tolerance).all())
