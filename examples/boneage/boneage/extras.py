"""Packages that only some commands need: the project's extras."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from boneage.errors import UserError


def check_extra(extra: str, packages: Sequence[str], purpose: str) -> None:
    """Check that the packages of an extra can be imported.

    Args:
        extra: Its name in `pyproject.toml`.
        packages: What is imported of it.
        purpose: What they are needed for, as in `"to write ONNX"`.

    Raises:
        UserError: If one is missing; it names all that are, and the remedy.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not installed, and needed {purpose}; from the repository's "
            f"root, pip install -e 'examples/boneage[{extra}]'"
        )
