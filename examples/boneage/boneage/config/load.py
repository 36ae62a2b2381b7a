"""The configuration from a preset, a file and overrides."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from boneage.config.overrides import replaced
from boneage.config.tree import Config
from boneage.errors import UserError


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    files = (resources.files("boneage") / "presets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_config(preset: str = "demo", overrides: list[str] | None = None) -> Config:
    """Read a preset (a name, or a YAML file's path) and apply `section.name=value` overrides.

    Raises:
        UserError: If the preset does not exist, a name is unknown, or a value does not fit.
    """
    tree, defaults = _read_preset(preset), Config().model_dump(mode="json")
    for override in overrides or []:
        path, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"override {override!r}: expected section.name=value")
        value = _parse_yaml(text, f"override {override!r}")
        tree = replaced(tree, path.strip().split("."), value, override, defaults)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(error, preset)) from None


def _read_preset(preset: str) -> dict[str, Any]:
    if preset in presets():
        text = (resources.files("boneage") / "presets" / f"{preset}.yaml").read_text("utf-8")
    else:
        try:
            text = Path(preset).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(
                f"preset {preset!r}: no such preset or file; the presets are {', '.join(presets())}"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"preset {preset!r}: cannot be read ({error})") from None
    tree = _parse_yaml(text, f"preset {preset}")
    if not isinstance(tree, dict | None):
        raise UserError(f"preset {preset}: expected sections, got {type(tree).__name__}")
    return {"preset": Path(preset).stem} | (tree or {})


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: not readable as YAML: {error}") from None


def _explain(error: ValidationError, preset: str) -> str:
    lines = [
        f"  {'.'.join(map(str, item['loc'])) or 'config'}: {_reason(item)}"
        for item in error.errors()
    ]
    return "\n".join([f"configuration (preset {preset}) does not fit:", *lines])


def _reason(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return "no setting has this name"
    return f"{item['msg'].removeprefix('Value error, ')} (got {item['input']!r:.80})"
