from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import left_in

from boneage.errors import UserError
from boneage.run_folder import (
    Stage,
    atomic_path,
    read_array,
    read_arrays,
    read_json,
    remove_drafts,
    write_json,
)


def test_a_new_file_takes_its_name_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "figures.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "whole"
    assert left_in(path.parent) == ["figures.txt"]


@pytest.mark.parametrize("error", [RuntimeError, UserError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path, error: type) -> None:
    path = tmp_path / "figures.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        fail()
    assert path.read_text() == "old"
    assert left_in(tmp_path) == ["figures.txt"]


@pytest.mark.parametrize("name", ["truth.npz", "predictions.npz"])
def test_numpy_writes_to_the_temporary_path_itself(tmp_path: Path, name: str) -> None:
    with atomic_path(tmp_path / name) as temporary:
        np.savez(temporary, values=np.arange(3))
    assert left_in(tmp_path) == [name]
    with np.load(tmp_path / name) as arrays:
        assert arrays["values"].tolist() == [0, 1, 2]


def test_the_mode_follows_the_mask_of_the_process(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", 1)
        with atomic_path(tmp_path / "b.json") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(mask)
    for name in ("a.json", "b.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640


def test_a_full_disk_is_one_message_and_keeps_the_old_file(
    tmp_path: Path, full_disk: Callable[[Path], None]
) -> None:
    path = tmp_path / "figures.json"
    write_json(path, {"old": 1})
    full_disk(path)
    with pytest.raises(
        UserError, match=r"figures\.json: cannot be written \(No space left"
    ) as info:
        write_json(path, {"new": 2})
    assert "free some space" in str(info.value)
    assert read_json(path) == {"old": 1}
    assert left_in(tmp_path) == ["figures.json"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_disk_that_fills_up_at_the_end_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, refuse)
    with pytest.raises(UserError, match="free some space"):
        write_json(tmp_path / "figures.json", 1)
    assert left_in(tmp_path) == []


def test_an_error_without_a_number_is_told_too(tmp_path: Path) -> None:
    # As numpy says it: without errno and strerror.
    with (
        pytest.raises(UserError, match="1024 requested and 0 written"),
        atomic_path(tmp_path / "a"),
    ):
        raise OSError("1024 requested and 0 written")


def test_a_folder_in_the_way_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    told = pytest.raises(UserError, match=r"out\.csv: cannot be written \(Is a directory\)")
    with told, atomic_path(tmp_path / "out.csv"):
        pytest.fail("the block has run")


def test_a_file_in_the_way_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / "runs" / "demo" / "a.json", 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is permitted to root")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="choose a folder you may write to"):
        write_json(tmp_path / "a.json", 1)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1'])
def test_json_that_is_broken_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: not readable as JSON"):
        read_json(tmp_path / "a.json")


def test_json_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: not there"):
        read_json(tmp_path / "a.json")


def finished(folder: Path, key: str = "key") -> Stage:
    stage = Stage(folder, key)
    stage.begin()
    (stage / "result.npy").write_bytes(b"12345")
    stage.finish(2.5)
    return stage


def test_a_stage_is_done_only_between_finish_and_another_key(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "prepare", "one")
    assert not stage.done
    stage.begin()
    assert not stage.done
    stage.finish(2.5)
    assert stage.done
    assert stage.seconds == 2.5
    assert Stage(tmp_path / "prepare", "one").done
    assert not Stage(tmp_path / "prepare", "two").done


def test_another_key_begins_from_an_empty_folder(tmp_path: Path) -> None:
    stage = finished(tmp_path / "prepare")
    (stage / "checkpoints").mkdir()
    (stage / "checkpoints" / "last.ckpt").write_bytes(b"old")
    other = Stage(stage.folder, "other")
    other.begin()
    assert left_in(stage.folder) == ["done.json"]
    assert not other.done
    assert not stage.done


def test_the_same_key_goes_on_with_what_is_there(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "train", "key")
    stage.begin()
    (stage / "last.ckpt").write_bytes(b"halfway")
    (stage / ".draft-0123.npy").write_bytes(b"left by a process that was killed")
    again = Stage(stage.folder, "key")
    again.begin()
    assert left_in(stage.folder) == ["done.json", "last.ckpt"]
    assert not again.done


@pytest.mark.parametrize("loss", [Path.unlink, lambda path: path.write_bytes(b"123")])
def test_a_stage_whose_file_is_lost_or_cut_is_not_done(
    tmp_path: Path, loss: Callable[[Path], object]
) -> None:
    stage = finished(tmp_path / "prepare")
    assert stage.done
    loss(stage / "result.npy")
    assert not stage.done
    stage.begin()
    (stage / "result.npy").write_bytes(b"1234567")
    stage.finish(1)
    assert stage.done


def test_checkpoints_and_later_files_may_come_and_go(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "train", "key")
    stage.begin()
    (stage / "checkpoints").mkdir()
    (stage / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    stage.finish(1)
    shutil.rmtree(stage / "checkpoints")
    (stage / "note.txt").write_text("mine")
    assert stage.done


def test_files_of_others_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "crop").mkdir()
    (tmp_path / "crop" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"crop: holds files that no run has written \(thesis\.tex"):
        Stage(tmp_path / "crop", "key").begin()
    assert (tmp_path / "crop" / "thesis.tex").read_text() == "years of work"


def test_an_interrupted_deletion_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(tmp_path / "prepare", "old")
    (tmp_path / "prepare" / "more.npy").write_bytes(b"old")
    unlink = Path.unlink

    def interrupt(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if path.suffix == ".npy":
            raise KeyboardInterrupt

    new = Stage(tmp_path / "prepare", "new")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", interrupt)
        with pytest.raises(KeyboardInterrupt):
            new.begin()
    assert len(left_in(new.folder)) == 2  # the marker, and one file of two
    assert not Stage(new.folder, "old").done
    assert not new.done
    new.begin()
    assert left_in(new.folder) == ["done.json"]


def test_a_folder_that_cannot_be_emptied_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = finished(tmp_path / "prepare", "old")
    (stage / "log").mkdir()

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    new = Stage(stage.folder, "new")
    with pytest.raises(UserError, match="prepare: cannot be written"):
        new.begin()
    assert not new.done


def test_a_linked_folder_is_emptied_but_not_what_it_links_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep.txt").write_text("keep")
    stage = finished(tmp_path / "large-disk" / "prepare", "old")
    (stage / "link").symlink_to(outside)
    (tmp_path / "prepare").symlink_to(stage.folder)
    Stage(tmp_path / "prepare", "new").begin()
    assert left_in(stage.folder) == ["done.json"]
    assert left_in(outside) == ["keep.txt"]


def test_a_full_disk_leaves_a_stage_undone(
    tmp_path: Path, full_disk: Callable[[Path], None]
) -> None:
    stage = Stage(tmp_path / "prepare", "key")
    stage.begin()
    full_disk(stage / "done.json")
    with pytest.raises(UserError, match="free some space"):
        stage.finish(1)
    assert not stage.done


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"key": "key"}', '{"done": true}'])
def test_a_marker_without_key_or_end_is_not_done(tmp_path: Path, content: str) -> None:
    stage = Stage(tmp_path / "prepare", "key")
    stage.begin()
    (stage / "done.json").write_text(content)
    assert not stage.done
    assert stage.seconds == 0
    stage.begin()
    stage.finish(1)
    assert stage.done


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt])
def test_a_finished_stage_stands_until_another_has_ended(tmp_path: Path, error: type) -> None:
    old, new = Stage(tmp_path / "prepare", "old"), Stage(tmp_path / "prepare", "new")
    old.begin()
    write_json(old / "old.json", 1)
    old.finish(1)

    def fill(*, refused: bool) -> None:
        with new.kept_unless_done():
            new.begin()
            write_json(new / "new.json", 2)
            if refused:
                raise error
            new.finish(1)

    with pytest.raises(error):
        fill(refused=True)
    assert old.done
    assert left_in(tmp_path) == ["prepare"]
    assert left_in(old.folder) == ["done.json", "old.json"]
    fill(refused=False)
    assert new.done
    assert left_in(tmp_path) == ["prepare"]
    assert left_in(new.folder) == ["done.json", "new.json"]


def test_what_a_killed_run_had_put_aside_is_removed(tmp_path: Path) -> None:
    write_json(tmp_path / ".draft-prepare" / "below" / ".draft-1.json", 1)
    remove_drafts(tmp_path, below=True)
    assert left_in(tmp_path) == []


def test_a_marker_of_an_older_run_still_counts(tmp_path: Path) -> None:
    (tmp_path / "done.json").write_text(json.dumps({"key": "key", "done": True, "seconds": 1.0}))
    assert Stage(tmp_path, "key").done


def test_drafts_of_two_processes_differ(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt") as first, atomic_path(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.txt").read_text() == "first"
    assert secrets.token_hex(8) != secrets.token_hex(8)


@pytest.mark.parametrize("content", [b"", bytes(300), b"no arrays", b"PK\x03\x04" + bytes(90)])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_damaged_arrays_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    read = read_array if name.endswith("npy") else read_arrays
    path = tmp_path / name
    with pytest.raises(UserError, match=f"{name}: not there"):
        read(path)
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: cannot be read .* delete .* and run again"):
        read(path)


def test_arrays_are_read_as_they_were_written(tmp_path: Path) -> None:
    numbers = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", numbers)
    np.savez(tmp_path / "a.npz", rows=numbers, other=numbers + 1)
    for mapped in (False, True):
        np.testing.assert_array_equal(read_array(tmp_path / "a.npy", mapped=mapped), numbers)
    found = read_arrays(tmp_path / "a.npz")
    assert found.keys() == {"rows", "other"}
    np.testing.assert_array_equal(found["other"], numbers + 1)
