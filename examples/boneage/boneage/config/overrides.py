"""Single values of a configuration put in the place of others, by their dotted names."""

from __future__ import annotations

from typing import Any

from boneage.errors import UserError


def replaced(
    tree: Any, path: list[str], value: Any, override: str, defaults: dict[str, Any]
) -> dict[str, Any]:
    """The tree with one value replaced; a section that it lacks begins with its defaults.

    The given tree stays as it is: sections that share an anchor of the YAML are one object in it.
    """
    name, *rest = path
    if not isinstance(tree, dict):
        raise UserError(f"override {override!r}: there is no section around {name}")
    if not rest:
        return {**tree, name: value}
    known = defaults.get(name)
    known = known if isinstance(known, dict) else {}
    return {**tree, name: replaced(tree.get(name, known), rest, value, override, known)}
