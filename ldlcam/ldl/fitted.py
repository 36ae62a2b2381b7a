"""What all modules share that are fitted on validation data after a network was trained."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Fitted(nn.Module):
    """Keeps what was fitted as it was: in float64, and only for the options it was fitted with.

    Casting a model to half precision would move an interval's end, so its fitted numbers only
    follow to another device (and are float32 where a device knows no float64). Its options are
    saved with them: a margin in standard deviations is nothing to add to years.
    """

    def __init__(self) -> None:
        super().__init__()
        self._starts: dict[str, float] = {}

    def register_fitted(self, name: str, start: float, shape: tuple[int, ...] = ()) -> None:
        """Add a buffer of numbers that are to be fitted, and are all alike before."""
        self._starts[name] = start
        self.register_buffer(name, torch.full(shape, start, dtype=torch.float64))

    def reset_parameters(self) -> None:
        """Forget what was fitted; also after `to_empty` from the meta device."""
        for name, start in self._starts.items():
            getattr(self, name).fill_(start)

    def options(self) -> str:
        """What the fitted numbers were fitted for; empty if there is no choice."""
        return ""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Fitted":
        fitted = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in fitted.items():
            moved = self._buffers[name]
            if value is not None and moved is not None and not moved.is_meta:
                exact = torch.float32 if moved.device.type == "mps" else torch.float64
                # From the meta device, on which there is no value, comes only room for one.
                self._buffers[name] = (moved if value.is_meta else value).to(moved.device, exact)
        return self

    def get_extra_state(self) -> Tensor:
        """The options, as a tensor of characters, which any format of files can hold."""
        return torch.tensor(list(self.options().encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Check that what is loaded was fitted with the same options.

        Raises:
            ValueError: If it was not.
        """
        saved = bytes(state.tolist()).decode()
        if saved != self.options():
            raise ValueError(f"{type(self).__name__}: expected {self.options()}, got {saved}")
