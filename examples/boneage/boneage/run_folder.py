"""The folder of a run: what each stage wrote, and whether it still stands."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boneage.errors import UserError

_MARKER = "done.json"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name only when the block ends well.

    A run that is killed, or a disk that is full, leaves the old file or none: never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); free some space") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON, with the file's name in the message when it cannot be read."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: not there; run the stage that writes it first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); delete it and run again") from None


class Stage:
    """One stage's folder. It counts as done only with a marker that carries the current key.

    The key says what the stage was computed from: its part of the configuration and the keys of
    the stages before it. When either changes, the stage is done again, from an empty folder.
    """

    def __init__(self, folder: Path, key: str):
        self.folder = folder
        self.key = key

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @property
    def done(self) -> bool:
        """Whether the stage ended, with this key."""
        return self._marker().get("key") == self.key and self._marker().get("done", False)

    def begin(self) -> None:
        """Open the folder: what an interrupted try with the same key left is kept to go on from."""
        if self._marker().get("key") != self.key:
            shutil.rmtree(self.folder, ignore_errors=True)
            write_json(self.folder / _MARKER, {"key": self.key, "done": False, "seconds": 0.0})

    def finish(self, seconds: float) -> None:
        """Mark the stage as done, with the time that it took (of its last try)."""
        write_json(self.folder / _MARKER, {"key": self.key, "done": True, "seconds": seconds})

    @property
    def seconds(self) -> float:
        """How long the stage took."""
        return float(self._marker().get("seconds", 0.0))

    def _marker(self) -> dict[str, Any]:
        path = self.folder / _MARKER
        return read_json(path) if path.exists() else {}
