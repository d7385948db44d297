"""Durable writes: what is on the disk when a call returns, seen at the seam to the system."""

import os
from pathlib import Path

import pytest

from tasks.stores import durable


@pytest.fixture
def met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced and renamed, in order, by name; a draft's without the number of its process."""
    sync, move, calls = os.fsync, Path.replace, list[str]()

    def named(path: Path) -> str:
        return str(path.relative_to(tmp_path)).replace(f".{os.getpid()}", "")

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        calls.append(f"sync {named(path)}" + ("" if path.is_dir() else f" {path.read_bytes().decode()}"))
        sync(handle)

    def replace(path: Path, target: Path) -> Path:
        calls.append(f"rename {named(path)}")
        return move(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    return calls


def test_s_03_content_is_synced_before_its_name_and_the_name_before_the_call_returns(tmp_path: Path, met: list[str]):
    """Else a loss of power may leave the name with nothing behind it (S-03)."""
    durable.write(tmp_path / "folder" / "a", b"content")
    assert met == ["sync folder/.a.part content", "rename folder/.a.part", "sync folder"]


def test_s_03_a_file_whose_sync_fails_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither under its name, where the old content stays, nor as a draft; it is not tried again on the same descriptor (S-03)."""
    (tmp_path / "a").write_text("old")
    calls = list[int]()

    def fsync(handle: int) -> None:
        calls.append(handle)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        durable.write(tmp_path / "a", b"new")
    assert len(calls) == 1
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_s_03_a_move_is_synced(tmp_path: Path, met: list[str]):
    (tmp_path / "a").write_text("content")
    durable.move(tmp_path / "a", tmp_path / "there" / "b")
    assert met == ["rename a", "sync there"]
