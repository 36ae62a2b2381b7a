"""The folder of a run: what each stage wrote, and whether it still stands."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from boneage.errors import UserError

TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}
"""How tables with names of files are opened: these need not be text."""

_MARKER = "done.json"
_DRAFT = ".draft-"
_NO_KEY: dict[str, Any] = {"key": None, "done": False, "seconds": 0.0}
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space and run again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a folder you may write to"),
}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an error of the system while a path is written into a message with the remedy.

    Raises:
        UserError: If the block raises OSError.
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the folder and the disk")
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); {remedy}"
        ) from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name only when the block ends well.

    A run that is killed, or a disk that is full, leaves the old file or none: never half of one.
    The temporary path has the same suffix, and the block has to write it.

    Raises:
        UserError: If the file cannot be written.
    """
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{_DRAFT}{secrets.token_hex(8)}{path.suffix}")
        try:
            draft.touch()
            mode = draft.stat().st_mode
            yield draft
            with open(draft, "rb") as written:
                os.fsync(written.fileno())
            # Some libraries write files that nobody else may read.
            draft.chmod(mode)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def remove_drafts(folder: Path, *, below: bool = False) -> None:
    """Remove what killed runs left half written in a folder, and if asked for in those below it."""
    _remove(folder, list((folder.rglob if below else folder.glob)(f"{_DRAFT}*")))


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON, with the file's name in the message when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not there; run the stage that writes it first") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not readable as JSON ({error}); delete it and run again"
        ) from None


def read_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    """Read a .npy file, or map it into memory, with the file's name in the message if it cannot."""
    with _reading_arrays(path):
        return np.asanyarray(np.load(path, mmap_mode="r" if mapped else None))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a .npz file whole, with the file's name in the message when it cannot be read."""
    with _reading_arrays(path), open(path, "rb") as file, np.load(file) as arrays:
        return dict(arrays)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file, whole or not at all."""
    with atomic_path(path) as temporary:
        np.save(temporary, array)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a .npz file of arrays by their names, whole or not at all."""
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle


@contextlib.contextmanager
def _reading_arrays(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: not there; run the stage that writes it first") from None
    # An array file whose content is damaged is anything, to numpy also a pickle or no archive.
    except (OSError, ValueError, EOFError, TypeError, AttributeError, BadZipFile) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete {path.parent} and run again"
        ) from None


class Stage:
    """One stage's folder. It counts as done only with a marker that carries the current key.

    The key says what the stage was computed from: its part of the configuration and the keys of
    the stages before it. When either changes, the stage is done again, from an empty folder. It
    is done again, too, when a file that it wrote is missing or has another size.
    """

    def __init__(self, folder: Path, key: str):
        self.folder = folder
        self.key = key

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @property
    def done(self) -> bool:
        """Whether the stage ended, with this key, and all that it wrote is there."""
        marker = self._marker()
        written = marker.get("files", {})
        there = self._sizes()
        return (
            marker.get("key") == self.key
            and marker.get("done") is True
            and all(there.get(name) == size for name, size in written.items())
        )

    def begin(self) -> None:
        """Open the folder: what an interrupted try with the same key left is kept to go on from.

        Raises:
            UserError: If the folder cannot be emptied, or holds files that no run has written.
        """
        if self._marker().get("key") != self.key:
            self._empty()
        remove_drafts(self.folder, below=True)
        write_json(self / _MARKER, {**_NO_KEY, "key": self.key})

    def finish(self, seconds: float) -> None:
        """Mark the stage as done, with the time that it took (of its last try)."""
        marker = {"key": self.key, "done": True, "seconds": seconds, "files": self._sizes()}
        write_json(self / _MARKER, marker)

    @contextlib.contextmanager
    def kept_unless_done(self) -> Iterator[None]:
        """A finished stage stands until the block has finished it by another key.

        A block that raises leaves it as it was.
        """
        marker = self._marker()
        if not marker.get("done") or marker.get("key") == self.key:
            yield
            return
        aside = self.folder.with_name(f"{_DRAFT}{self.folder.name}")
        with writing(self.folder):
            os.replace(self.folder, aside)
        try:
            yield
        except BaseException:
            with writing(self.folder):
                shutil.rmtree(self.folder, ignore_errors=True)
                os.replace(aside, self.folder)
            raise
        _remove(aside.parent, [aside])

    @property
    def seconds(self) -> float:
        """How long the stage took."""
        return float(self._marker().get("seconds", 0.0))

    def _marker(self) -> dict[str, Any]:
        path = self / _MARKER
        marker = read_json(path) if path.exists() else {}
        return marker if isinstance(marker, dict) else {}

    def _entries(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []

    def _sizes(self) -> dict[str, int]:
        """Files in the folder itself, with their sizes; what lies deeper (checkpoints) may go."""
        files = (path for path in self._entries() if path.is_file() and path.name != _MARKER)
        return {path.name: path.stat().st_size for path in files}

    def _empty(self) -> None:
        old = [path for path in self._entries() if path.name != _MARKER]
        foreign = [path.name for path in old if not path.name.startswith(_DRAFT)]
        if foreign and not (self / _MARKER).exists():
            raise UserError(
                f"{self.folder}: holds files that no run has written ({foreign[0]}); "
                "move them away, or choose another folder for the run"
            )
        if old:
            # The marker outlives the files: an interruption here leaves a folder to be emptied.
            write_json(self / _MARKER, _NO_KEY)
            _remove(self.folder, old)


def _remove(folder: Path, paths: Iterable[Path]) -> None:
    """Remove files and folders from within a folder."""
    with writing(folder):
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
