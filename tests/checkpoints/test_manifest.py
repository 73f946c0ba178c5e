# SPDX-License-Identifier: MIT
"""A folder is as its manifest says, or it is refused by the name of the file."""

import json
import os

import numpy as np
import pytest

from rllib_per.checkpoints.archive import ArchiveWriter, seal_parts
from rllib_per.checkpoints.archive_reader import part_folder
from rllib_per.checkpoints.files import CheckpointError
from rllib_per.checkpoints.folders import MANIFEST, MANIFEST_FORMAT, seal, verify
from tests.checkpoints.test_archive import SEGMENT_BYTES
from tests.replay.test_state import lived_in, make


@pytest.fixture
def checkpoint(tmp_path):
    """Like a run's: a buffer, sealed by itself, in an algorithm's folder, in a checkpoint."""
    replay = tmp_path / "checkpoint" / "algorithm" / "replay_buffer"
    part_folder(replay, 0).mkdir(parents=True)
    buffer, _ = lived_in(make(capacity=400), rounds=20)
    ArchiveWriter(4 * SEGMENT_BYTES).write(
        buffer.snapshot(), buffer.copy_rows, part_folder(replay, 0)
    )
    seal_parts(replay, 1, {})
    (replay.parent / "state.pkl").write_bytes(bytes(range(256)) * 9)
    seal(replay.parent)
    (tmp_path / "checkpoint" / "training.json").write_text('{"time_s": 1.5}')
    seal(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def files(checkpoint):
    found = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    assert len(found) > 15
    return found


def refused(checkpoint, path):
    with pytest.raises(CheckpointError) as error:
        verify(checkpoint)
    assert str(path) in str(error.value)


def test_what_was_sealed_is_whole(checkpoint):
    verify(checkpoint)


def test_a_file_cut_at_any_sixteenth_is_refused_by_its_name(checkpoint):
    for path in files(checkpoint):
        content = path.read_bytes()
        for sixteenth in range(16):
            path.write_bytes(content[: len(content) * sixteenth // 16])
            refused(checkpoint, path)
        path.write_bytes(content)
    verify(checkpoint)


def test_one_flipped_bit_anywhere_is_refused_by_the_files_name(checkpoint):
    rng = np.random.default_rng(0)
    for path in files(checkpoint):
        content = path.read_bytes()
        places = {0, len(content) - 1, *rng.integers(len(content), size=14).tolist()}
        for place in places:
            changed = bytearray(content)
            changed[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            with pytest.raises(CheckpointError) as error:
                verify(checkpoint)
            # Nobody vouches for the uppermost manifest: it may accuse a file that it lists.
            expected = path.parent if path == checkpoint / MANIFEST else path
            assert str(expected) in str(error.value)
        path.write_bytes(content)
    verify(checkpoint)


def test_a_missing_file_is_refused_by_its_name(checkpoint):
    for path in files(checkpoint):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(CheckpointError, match=r"is missing|not in the manifest"):
            verify(checkpoint)
        path.write_bytes(content)
    verify(checkpoint)


@pytest.mark.parametrize("folder", ["", "algorithm", "algorithm/replay_buffer/part-000"])
def test_a_file_that_was_added_is_refused_by_its_name(checkpoint, folder):
    added = checkpoint / folder / "state.msgpack"
    added.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"state\.msgpack is not in the manifest"):
        verify(checkpoint)


def test_a_folder_that_was_added_with_a_manifest_is_refused_too(checkpoint):
    (checkpoint / "more").mkdir()
    seal(checkpoint / "more")
    with pytest.raises(CheckpointError, match=r"more/manifest\.json is not in the manifest"):
        verify(checkpoint)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 2}', '{"files": {}}', "[" * 10**5])
def test_a_broken_manifest_is_refused_by_its_name(checkpoint, text):
    (checkpoint / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json cannot be read"):
        verify(checkpoint)


def test_without_a_manifest_it_was_not_finished(checkpoint):
    (checkpoint / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="not finished"):
        verify(checkpoint)


@pytest.mark.parametrize("version", [1, MANIFEST_FORMAT + 1, "x", None])
def test_another_format_is_refused(checkpoint, version):
    change_manifest(checkpoint, lambda manifest: manifest.update(format=version))
    with pytest.raises(CheckpointError, match=f"has format {version!r}; this version reads"):
        verify(checkpoint)


def change_manifest(folder, change):
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "name", ["../outside", "a/../../outside", "/etc/passwd", "a//b", "./a", "a\\b", "", "a\0b"]
)
def test_a_name_that_leads_elsewhere_is_refused_unread(checkpoint, name, monkeypatch):
    (checkpoint.parent / "outside").write_text("secret")
    size_and_sum = json.loads((checkpoint / MANIFEST).read_text())["files"]["training.json"]
    change_manifest(checkpoint, lambda manifest: manifest["files"].update({name: size_and_sum}))
    with pytest.raises(CheckpointError, match="must be below its folder"):
        verify(checkpoint)


@pytest.mark.parametrize("target", ["file", "folder", "manifest"])
def test_a_link_in_place_of_a_file_is_refused(checkpoint, target):
    """Even where what it leads to is the same to the last bit."""
    path = {
        "file": checkpoint / "training.json",
        "folder": checkpoint / "algorithm",
        "manifest": checkpoint / MANIFEST,
    }[target]
    moved = path.rename(checkpoint.parent / "elsewhere")
    path.symlink_to(moved)
    with pytest.raises(CheckpointError, match=r"is a link|no plain file"):
        verify(checkpoint)


def test_a_pipe_is_refused_and_not_waited_for(checkpoint):
    (checkpoint / "training.json").unlink()
    os.mkfifo(checkpoint / "training.json")
    with pytest.raises(CheckpointError, match="is a link or a device"):
        verify(checkpoint)


def test_what_is_ignored_may_be_damaged_or_gone(checkpoint):
    path = next((checkpoint / "algorithm" / "replay_buffer").rglob("frames.*"))
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=path.name):
        verify(checkpoint)
    verify(checkpoint, ignore=frozenset({"replay_buffer"}))
    (checkpoint / "algorithm" / "state.pkl").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"state\.pkl"):
        verify(checkpoint, ignore=frozenset({"replay_buffer"}))
