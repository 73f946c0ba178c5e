# SPDX-License-Identifier: MIT
"""A checkpoint that exists is whole, and a damaged one is named and passed over."""

import json
import logging

import pytest

from rllib_per.experiments.checkpoints import (
    MANIFEST,
    CheckpointError,
    newest_checkpoint,
    save_checkpoint,
    verify_checkpoint,
)

CONTENT = bytes(range(256)) * 40


def write(folder):
    (folder / "part").mkdir()
    (folder / "part" / "arrays.npy").write_bytes(CONTENT)
    (folder / "state.json").write_text("{}")


@pytest.fixture
def folder(tmp_path):
    for env_steps in (1000, 2000):
        save_checkpoint(tmp_path, env_steps, write, keep=2)
    return tmp_path


def damaged(folder, caplog):
    """The newest checkpoint is refused by name, and the one before it is taken."""
    with pytest.raises(CheckpointError) as refused:
        verify_checkpoint(folder / "step-000000002000")
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(folder).name == "step-000000001000"
    assert str(refused.value) in caplog.text
    return str(refused.value)


def test_the_newest_is_found(folder):
    assert newest_checkpoint(folder).name == "step-000000002000"


def test_only_the_newest_are_kept(folder):
    save_checkpoint(folder, 3000, write, keep=2)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["step-000000002000", "step-000000003000"]


@pytest.mark.parametrize("sixteenth", range(16))
def test_a_file_that_was_cut_is_refused(folder, caplog, sixteenth):
    file = folder / "step-000000002000" / "part" / "arrays.npy"
    file.write_bytes(CONTENT[: len(CONTENT) * sixteenth // 16])
    assert "arrays.npy" in damaged(folder, caplog)


@pytest.mark.parametrize("position", [0, 5000, len(CONTENT) - 1])
def test_one_flipped_bit_is_refused(folder, caplog, position):
    file = folder / "step-000000002000" / "part" / "arrays.npy"
    changed = bytearray(CONTENT)
    changed[position] ^= 1
    file.write_bytes(changed)
    assert "arrays.npy" in damaged(folder, caplog)


def test_a_missing_file_is_refused(folder, caplog):
    (folder / "step-000000002000" / "state.json").unlink()
    assert "state.json is missing" in damaged(folder, caplog)


def test_a_file_that_was_added_is_refused(folder, caplog):
    (folder / "step-000000002000" / "more.pkl").write_text("")
    assert "more.pkl is not in the manifest" in damaged(folder, caplog)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', '{"files": {}}'])
def test_a_broken_manifest_is_refused(folder, caplog, text):
    (folder / "step-000000002000" / MANIFEST).write_text(text)
    assert MANIFEST in damaged(folder, caplog)


def test_a_later_format_is_refused(folder, caplog):
    manifest = folder / "step-000000002000" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 2}))
    assert "format 2" in damaged(folder, caplog)


def test_a_save_that_fails_leaves_what_was_there(folder):
    def fail(path):
        write(path)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(folder, 3000, fail, keep=2)
    assert newest_checkpoint(folder).name == "step-000000002000"
    assert len(list(folder.iterdir())) == 2


def test_without_a_whole_checkpoint_it_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="holds no whole checkpoint"):
        newest_checkpoint(tmp_path)
