# SPDX-License-Identifier: MIT
"""A buffer in a folder: the same buffer when it comes back, and written once where it can be."""

import json
import os
import threading

import numpy as np
import pytest

from rllib_per.checkpoints.archive import ArchiveWriter
from rllib_per.checkpoints.archive_reader import VALUES, read_part
from rllib_per.checkpoints.files import CheckpointError
from rllib_per.checkpoints.folders import verify
from rllib_per.replay import PrioritizedReplayBuffer, contents, snapshot
from tests.replay.test_state import go_on, lived_in, make
from tests.support.experience import Streams, frame_of, row_spec

ROWS_PER_SEGMENT = 32
SEGMENT_BYTES = ROWS_PER_SEGMENT * 24  # A frame has 24 bytes.


@pytest.fixture
def writer():
    return ArchiveWriter(SEGMENT_BYTES)


def save(writer, buffer, folder):
    folder.mkdir()
    return writer.write(buffer.snapshot(), buffer.copy_rows, folder)


def assert_same(one, other):
    mine, theirs = one.state(), other.state()
    for name in one.state_arrays:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
        del mine[name], theirs[name]
    assert mine == theirs


@pytest.mark.parametrize("rounds", [0, 1, 3, 20])
def test_a_buffer_comes_back_as_it_was(writer, tmp_path, rounds):
    buffer, _ = lived_in(make(), rounds) if rounds else (make(), None)
    save(writer, buffer, tmp_path / "a")
    verify(tmp_path / "a")
    restored = make(seed=99)
    restored.load_state(read_part(tmp_path / "a"))
    assert_same(buffer, restored)


def test_the_next_thousand_samples_after_a_restore_are_the_same(writer, tmp_path):
    buffer, streams = lived_in(make())
    save(writer, buffer, tmp_path / "a")
    restored = make(seed=99)
    restored.load_state(read_part(tmp_path / "a"))
    again = Streams(np.random.default_rng(5), dict(streams.next_step))
    streams.rng = np.random.default_rng(5)
    streams._resets.clear()
    for one, other in zip(go_on(buffer, streams, 1000), go_on(restored, again, 1000), strict=True):
        np.testing.assert_array_equal(one, other)


# -- what is shared --------------------------------------------------------------------------


def inodes(folder):
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def test_sealed_segments_are_written_once_and_every_checkpoint_is_whole_by_itself(writer, tmp_path):
    buffer, streams = lived_in(make(capacity=400), rounds=40)
    states = []
    for i in range(12):
        report = save(writer, buffer, tmp_path / "beside")
        folder = (tmp_path / "beside").rename(tmp_path / str(i))  # As a checkpoint is.
        if i:
            before, now = inodes(tmp_path / str(i - 1)), inodes(folder)
            shared = {name for name, inode in now.items() if before.get(name) == inode}
            # The newest row of each of three streams was open then, and may lie in a full segment.
            was_sealed = {
                name
                for name in now.keys() & before.keys()
                if name.count(".") > 1 and stop_of(name) <= states[-1]["written"] - 3
            }
            assert was_sealed <= shared
            assert all(stop_of(name) % ROWS_PER_SEGMENT == 0 for name in shared)
            assert report.num_bytes_shared > report.num_bytes_written / 4
        states.append(buffer.state())
        for _ in range(3):
            buffer.add(streams.fragment([0, 1, 2], 6))
            batch = buffer.sample(8, 0.5)
            buffer.update_priorities(batch.ids, np.linspace(-3.0, 3.0, 8))
        for old in (tmp_path / str(i - 2)).glob("*"):
            old.unlink()  # The last name of a segment takes it away, and no earlier one.
        verify(folder)
    restored = make(capacity=400)
    for i in (10, 11):
        verify(tmp_path / str(i))
        restored.load_state(read_part(tmp_path / str(i)))
        for name in restored.state_arrays:
            np.testing.assert_array_equal(restored.state()[name], states[i][name])


def stop_of(name):
    return int(name.split(".")[-2].split("-")[1])


def test_a_segment_with_a_row_that_is_still_open_is_written_again(writer, tmp_path):
    buffer, streams = lived_in(make(capacity=400), rounds=4)
    save(writer, buffer, tmp_path / "a")
    for _ in range(8):
        buffer.add(streams.fragment([0, 1], 6))  # Stream 2 waits, its newest row among the old.
    save(writer, buffer, tmp_path / "b")
    buffer.add(streams.fragment([0, 1, 2], 6))
    save(writer, buffer, tmp_path / "c")
    restored = make(capacity=400)
    restored.load_state(read_part(tmp_path / "c"))
    assert_same(buffer, restored)


def test_after_a_restore_nothing_of_another_history_is_shared(writer, tmp_path):
    buffer, streams = lived_in(make(capacity=400), rounds=6)
    state = buffer.state()
    for _ in range(6):
        buffer.add(streams.fragment([0, 1, 2], 6))
    save(writer, buffer, tmp_path / "a")
    buffer.load_state(state)
    other = Streams(np.random.default_rng(77))
    for _ in range(6):
        buffer.add(other.fragment([3, 4, 5], 6))  # Other rows under the same numbers.
    assert save(writer, buffer, tmp_path / "b").num_bytes_shared == 0
    restored = make(capacity=400)
    restored.load_state(read_part(tmp_path / "b"))
    assert_same(buffer, restored)


def test_a_shared_segment_that_somebody_changed_is_written_again(writer, tmp_path):
    buffer, _ = lived_in(make(capacity=400), rounds=20)
    save(writer, buffer, tmp_path / "a")
    for path in (tmp_path / "a").glob("frames.*"):
        path.write_bytes(path.read_bytes()[:-1])
    save(writer, buffer, tmp_path / "b")
    verify(tmp_path / "b")


def test_a_save_that_failed_does_not_end_the_sharing(writer, tmp_path):
    buffer, _ = lived_in(make(capacity=400), rounds=20)
    save(writer, buffer, tmp_path / "a")
    save(writer, buffer, tmp_path / "b")
    for path in (tmp_path / "b").iterdir():  # The checkpoint around it came to nothing.
        path.unlink()
    (tmp_path / "b").rmdir()
    assert save(writer, buffer, tmp_path / "c").num_bytes_shared > 0


def test_where_links_are_not_possible_everything_is_written(writer, tmp_path, monkeypatch):
    buffer, _ = lived_in(make(capacity=400), rounds=20)
    save(writer, buffer, tmp_path / "a")

    def refuse(*arguments, **options):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert save(writer, buffer, tmp_path / "b").num_bytes_shared == 0
    restored = make(capacity=400)
    restored.load_state(read_part(tmp_path / "b"))
    assert_same(buffer, restored)


# -- while the buffer is in use --------------------------------------------------------------


@pytest.fixture
def tiny_pieces(monkeypatch):
    """Some rows at a time, as of a buffer of gigabytes."""
    for module in (snapshot, contents):
        monkeypatch.setattr(module, "PIECE_BYTES", 240)


@pytest.mark.parametrize("fragments_per_copy", [0, 1, 4])
def test_a_save_is_of_one_moment_whatever_happens_meanwhile(
    writer, tmp_path, tiny_pieces, fragments_per_copy
):
    """Experience comes between any two pieces; at the highest rate it overtakes the save."""
    buffer, streams = lived_in(make(capacity=400), rounds=40)
    before, overtaken = buffer.state(), 0

    def copy_rows(name, first, stop):
        for _ in range(fragments_per_copy):
            buffer.add(streams.fragment([0, 1, 2], 6))
            batch = buffer.sample(8, 0.5)
            buffer.update_priorities(batch.ids, np.linspace(-3.0, 3.0, 8))
        return buffer.copy_rows(name, first, stop)

    (tmp_path / "a").mkdir()
    report = writer.write(buffer.snapshot(), copy_rows, tmp_path / "a")
    overtaken = report.num_rows_overtaken
    assert (overtaken > 0) == (fragments_per_copy > 0)
    verify(tmp_path / "a")
    restored = make(capacity=400)
    restored.load_state(read_part(tmp_path / "a"))
    original = make(capacity=400)
    original.load_state(before)
    assert restored.state()["counts"] == original.state()["counts"]
    if overtaken < 390:
        assert_transitions(restored, original)
    # It is an ordinary buffer: it wraps, and never shows a frame that is not the row's own.
    for _ in range(60):
        restored.add(streams.fragment([0, 1, 2], 6))
        check_frames(restored.sample(32, 0.5))


def everything(buffer):
    """Every transition that may be drawn, and its mass, by id; however rarely it is drawn."""
    slots = buffer._ring.ready_slots()
    masses = buffer.state()["masses"][slots]
    longest = np.full(len(slots), 3)
    batch = buffer._storage.gather(slots, longest, np.ones(len(slots), np.float32))
    check_frames(batch)
    columns = (batch.obs, batch.actions, batch.next_obs, batch.extras["number"], masses)
    return {int(i): [c[row] for c in columns] for row, i in enumerate(batch.ids)}


def check_frames(batch):
    """Data carries its identity: the newest frame of a stack is that of the row's number."""
    for obs, number in zip(batch.obs, batch.extras["number"], strict=True):
        np.testing.assert_array_equal(obs[-1], frame_of(obs[-1][1][1], number))
        known = obs[obs[:, 0, 2] == 1]
        assert (np.diff(known[:, 0, 1]) == 1).all()


def assert_transitions(restored, original):
    """What is left is the newest part of what there was, with the masses it had."""
    mine, theirs = everything(restored), everything(original)
    assert mine
    assert mine.keys() <= theirs.keys()
    assert min(mine) >= min(theirs)
    assert [i for i in sorted(theirs) if i >= min(mine) and i not in mine] == []
    for i, columns in mine.items():
        for column, expected in zip(columns, theirs[i], strict=True):
            np.testing.assert_array_equal(column, expected)


def test_a_small_buffer_is_copied_at_once(writer, tmp_path):
    buffer, streams = lived_in(make(capacity=400), rounds=40)
    before, moment = buffer.state(), buffer.snapshot()
    for _ in range(40):
        buffer.add(streams.fragment([0, 1, 2], 6))
    (tmp_path / "a").mkdir()
    assert writer.write(moment, buffer.copy_rows, tmp_path / "a").num_rows_overtaken == 0
    restored, original = make(capacity=400), make(capacity=400)
    restored.load_state(read_part(tmp_path / "a"))
    original.load_state(before)
    assert_same(restored, original)


@pytest.mark.parametrize("pieces", ["tiny_pieces", "tmp_path"], ids=["in_pieces", "at_once"])
def test_threads_may_add_sample_and_update_while_it_is_saved(tmp_path, request, pieces):
    request.getfixturevalue(pieces)
    writer, buffer = ArchiveWriter(16 * SEGMENT_BYTES), make(capacity=3000)
    streams = Streams(np.random.default_rng(0))
    for _ in range(60):
        buffer.add(streams.fragment([0, 1, 2], 20))
    done, failed, room = threading.Event(), [], threading.Semaphore(0)

    def work(job):
        try:
            while not done.is_set():
                job()
        except BaseException as error:
            failed.append(error)

    def learn():
        batch = buffer.sample(32, 0.5)
        check_frames(batch)
        buffer.update_priorities(batch.ids, np.linspace(-3.0, 3.0, 32))

    def collect():
        if room.acquire(timeout=0.01):  # Less than the buffer holds in one save.
            buffer.add(streams.fragment([0, 1, 2], 20))

    threads = [threading.Thread(target=work, args=(job,)) for job in (learn, collect)]
    for thread in threads:
        thread.start()
    try:
        for i in range(4):
            room.release(25)
            save(writer, buffer, tmp_path / str(i))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failed == []
    for i in range(4):
        verify(tmp_path / str(i))
        restored = make(capacity=3000)
        restored.load_state(read_part(tmp_path / str(i)))
        assert restored.total_mass == pytest.approx(restored.state()["masses"].sum())
        for _ in range(20):
            check_frames(restored.sample(64, 0.5))


# -- what is refused -------------------------------------------------------------------------


@pytest.fixture
def saved(writer, tmp_path):
    buffer, _ = lived_in(make(capacity=400), rounds=20)
    save(writer, buffer, tmp_path / "a")
    return tmp_path / "a"


def change_values(folder, change):
    values = json.loads((folder / VALUES).read_text())
    change(values)
    (folder / VALUES).write_text(json.dumps(values))


def test_another_capacity_is_refused_and_nothing_changes(saved):
    buffer, _ = lived_in(make(capacity=401), rounds=3)
    before = buffer.state()
    with pytest.raises(ValueError, match=r"the same kind of buffer.*'capacity': 401"):
        buffer.load_state(read_part(saved))
    assert buffer.state()["written"] == before["written"]


def test_a_future_format_is_refused(saved):
    change_values(saved, lambda values: values.update(format=99))
    with pytest.raises(CheckpointError, match=r"values\.json has format 99"):
        read_part(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("segments"),
        lambda v: v["values"].pop("spec"),
        lambda v: v["segments"]["frames"].pop(0),
        lambda v: v["segments"]["frames"].pop(),
        lambda v: v["segments"]["frames"].clear(),
        lambda v: v["segments"]["frames"].reverse(),
        lambda v: v["values"]["spec"]["columns"].update(frames=["|O", [2, 3]]),
        lambda v: v["values"]["spec"].update(capacity=0),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(saved, change):
    change_values(saved, change)
    with pytest.raises(CheckpointError, match=r"values\.json cannot be read"):
        read_part(saved)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((7, 2, 3), np.int64),
        np.zeros((7, 3, 2), np.int32),
        np.zeros((7, 2, 3), np.int32),
        np.zeros((2, 2, 3), np.int32, order="F"),
        np.array([[[None] * 3] * 2] * 7),
    ],
    ids=["dtype", "row", "length", "order", "objects"],
)
def test_a_segment_of_another_kind_is_refused_by_name_and_the_buffer_is_empty(saved, array):
    path = sorted(saved.glob("frames.*"))[2]
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=True)
    buffer, streams = lived_in(make(capacity=400), rounds=3)
    with pytest.raises(CheckpointError, match=path.name):
        buffer.load_state(read_part(saved))
    assert len(buffer) == 0
    assert buffer.total_mass == 0.0
    buffer.add(streams.fragment([0, 1, 2], 20))
    check_frames(buffer.sample(8, 0.5))


def test_no_array_of_objects_is_written(writer, tmp_path):
    buffer = PrioritizedReplayBuffer(40, row_spec())
    (tmp_path / "a").mkdir()
    buffer.add(Streams(np.random.default_rng(0)).fragment([0], 9))
    moment = buffer.snapshot()
    moment.arrays["priorities"] = np.array([object()])
    with pytest.raises(TypeError, match=r"priorities\.npy would hold object"):
        writer.write(moment, buffer.copy_rows, tmp_path / "a")
