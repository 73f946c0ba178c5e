# SPDX-License-Identifier: MIT
"""Row bookkeeping of the replay ring: which rows belong together, and which of them may be drawn.

Rows of any number of streams share one ring. A row has a sequence number that only grows; its slot
is the sequence modulo the capacity. Rows of one frame history are linked by distances, so streams
may interleave in any order and at any speed:

    slot       0     1     2     3     4     5     6        a, b: two streams
    frame      a0    b0    a1    b1    a2    a3    b2       b2: written by b's slower runner
    back       .     .     2     2     2     1     3
    ahead      2     2     2     3     1     .     .

The newest row of a stream is *open*: its frame is known, its action comes with the stream's next
fragment. A row whose window of n steps is complete is *ready*: it may be drawn, and keeps every
frame that its stacks need until one of them is overwritten.
"""

from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

import numpy as np

from rllib_per.replay import ids as _ids

cdef int64_t SEQUENCE_BITS = _ids.SEQUENCE_BITS
cdef int64_t INCARNATION_BITS = _ids.INCARNATION_BITS
cdef int64_t LARGEST_STEP = 2**63 - 1

cdef enum Kind:
    EMPTY = 0
    OPEN = 1  # newest row of a stream: a frame whose action is not known yet
    STOP = 2  # last frame of a history: never a transition
    PENDING = 3  # a transition whose window is not complete yet
    READY = 4  # a transition that may be drawn
    LOST = 5  # a transition one of whose frames is missing

cdef enum End:
    GOES_ON = 0
    TERMINATED = 1
    TRUNCATED = 2

cdef struct Row:
    uint32_t back  # how many rows back this history's previous frame lies; 0: this is its first
    uint32_t ahead  # how many rows ahead its next frame lies; 0: this is its last
    float reward
    uint16_t kind
    uint8_t ended
    uint8_t torn  # 1: this history's first row, and frames before it are missing

cdef struct Stream:
    int64_t stream_id
    int64_t open  # sequence of its newest row
    int64_t next_step  # number of the row that its next fragment must start with
    int64_t pending  # sequence of its oldest row whose window is not complete
    int64_t num_pending  # how many such rows there are, `pending` and the next ones ahead

ROW_DTYPE = np.dtype(
    [
        ("back", "u4"), ("ahead", "u4"), ("reward", "f4"),
        ("kind", "u2"), ("ended", "u1"), ("torn", "u1"),
    ]
)
STREAM_DTYPE = np.dtype(
    [
        (name, "i8")
        for name in ("stream_id", "open", "next_step", "pending", "num_pending")
    ]
)


def check_rows(
    const int64_t[::1] stream_ids not None,
    const int64_t[::1] first_step not None,
    const float[:, ::1] rewards not None,
    const uint8_t[:, ::1] reset not None,
):
    """What T rows of N streams must be, whatever ring they go into; O(T·N).

    Any 64-bit integer can name a stream.

    Raises:
        ValueError: A stream occurs twice, the number of a row is negative or has too many bits, or
            a reward is not finite.
    """
    cdef Py_ssize_t t, n, num_rows = rewards.shape[0], num_streams = rewards.shape[1]
    if not (stream_ids.shape[0] == first_step.shape[0] == reset.shape[1] == num_streams
            and reset.shape[0] == num_rows):
        raise ValueError("the columns of a fragment must have the same rows and streams")
    if num_streams > 1 and len(set(np.asarray(stream_ids).tolist())) < num_streams:
        raise ValueError(
            "stream_ids must differ: a stream occurs twice in the fragment; give every "
            "environment an id of its own"
        )
    for n in range(num_streams):
        if not 0 <= first_step[n] <= LARGEST_STEP - num_rows:
            raise ValueError(
                f"first_step must be at least 0, and at most 2^63 - 1 less the {num_rows} rows of "
                f"the fragment: got {first_step[n]} from stream {stream_ids[n]}; count the rows of "
                "each stream from 0 on"
            )
    for t in range(num_rows):
        for n in range(num_streams):
            if not reset[t, n] and not isfinite(rewards[t, n]):
                raise ValueError(
                    f"rewards must be finite: got {rewards[t, n]} from stream "
                    f"{stream_ids[n]} in row {t} of the fragment; look at that environment"
                )


cdef class Ring:
    """Links, rewards and life cycle of `capacity` rows.

    Args:
        capacity: Rows, at most 2^31.
        stack: Frames that an observation needs.
        n_step: Steps of the longest window.
        first_id: The id of the row with sequence number 0.
    """

    cdef readonly int64_t capacity
    cdef readonly int64_t first_id
    cdef readonly int64_t written  # rows ever written: the next row's sequence number
    cdef readonly int64_t num_ready  # rows that may be drawn
    cdef readonly int64_t num_gaps  # histories cut because their stream's rows do not go on
    cdef readonly object rows  # the ring, as a structured array
    cdef int64_t stack
    cdef int64_t n_step
    cdef Row[::1] _rows
    cdef object _stream_array
    cdef Stream[::1] _streams
    cdef int64_t _num_streams
    cdef dict _stream_index  # stream id -> position in _streams

    def __init__(self, int64_t capacity, int64_t stack, int64_t n_step, int64_t first_id):
        self.capacity = capacity
        self.stack = stack
        self.n_step = n_step
        self.first_id = first_id
        self.written = self.num_ready = self.num_gaps = 0
        self.rows = np.zeros(capacity, ROW_DTYPE)
        self._rows = self.rows
        self._set_streams(np.zeros(0, STREAM_DTYPE))

    # -- adding ------------------------------------------------------------------------------

    def append(
        self,
        const int64_t[::1] stream_ids not None,
        const int64_t[::1] first_step not None,
        const float[:, ::1] rewards not None,
        const uint8_t[:, ::1] terminated not None,
        const uint8_t[:, ::1] truncated not None,
        const uint8_t[:, ::1] reset not None,
        double reward_clip,
    ):
        """Write the T rows of N streams; O(T·N), whatever the capacity.

        Returns:
            row_slots: (T·N,) where each of the fragment's rows went.
            frame_slots: ((T + 1)·N,) where each of its frames is to go, -1 if it is there already.
            changed: Slots whose mass changes: first those that can't be drawn any more, then
                those that now can, each ordered as they were written.
            num_gone: How many are of the first kind.

        Raises:
            ValueError: `check_rows` refuses them, or the ring is too small;
                nothing has been written.
            OverflowError: The sequence numbers are used up.
        """
        cdef Py_ssize_t num_rows = rewards.shape[0], num_streams = rewards.shape[1]
        if not (stream_ids.shape[0] == first_step.shape[0] == num_streams
                and terminated.shape[0] == truncated.shape[0] == reset.shape[0] == num_rows
                and terminated.shape[1] == truncated.shape[1] == reset.shape[1] == num_streams):
            raise ValueError("the columns of a fragment must have the same rows and streams")
        check_rows(stream_ids, first_step, rewards, reset)
        self._check_room((num_rows + 1) * num_streams)
        cdef int64_t[::1] table = self._enlist(stream_ids)
        cdef int64_t num_written = self._meet_streams(table, first_step, num_rows)

        row_slots = np.empty(num_rows * num_streams, np.int64)
        frame_slots = np.empty((num_rows + 1) * num_streams, np.int64)
        # A transition leaves once; those that come are new rows or were pending.
        changed = np.empty(
            min(num_written * self.stack, self.num_ready)
            + num_streams * (num_rows + self.n_step),
            np.int64,
        )
        cdef int64_t[::1] rows_out = row_slots, frames_out = frame_slots, changed_out = changed
        cdef int64_t num_gone, num_changed
        with nogil:
            num_gone = self._evict(num_written, changed_out)
            num_changed = self._begin_histories(
                table, first_step, num_written, frames_out, changed_out, num_gone
            )
            num_changed = self._write(
                table, rewards, terminated, truncated, reset, reward_clip,
                rows_out, frames_out, changed_out, num_changed,
            )
        self.num_ready += num_changed - 2 * num_gone
        return row_slots, frame_slots, changed[:num_changed], num_gone

    cdef int _check_room(self, int64_t needed) except -1:
        if needed > self.capacity:
            raise ValueError(
                f"a fragment must fit into the buffer: it has {needed} frames and capacity is "
                f"{self.capacity}; raise capacity or send shorter fragments"
            )
        if self.written + needed > (<int64_t>1 << SEQUENCE_BITS):
            raise OverflowError(
                f"all 2^{SEQUENCE_BITS} sequence numbers are used; "
                "go on with a new buffer of the next incarnation"
            )
        return 0

    cdef int64_t[::1] _enlist(self, const int64_t[::1] stream_ids):
        """Each stream's position in the table; new streams get one."""
        cdef Py_ssize_t n
        table = np.empty(stream_ids.shape[0], np.int64)
        cdef int64_t[::1] table_out = table
        cdef object position
        if self._num_streams + stream_ids.shape[0] > self._streams.shape[0]:
            self._make_room(stream_ids.shape[0])
        for n in range(stream_ids.shape[0]):
            position = self._stream_index.get(stream_ids[n])
            if position is None:
                position = self._num_streams
                self._stream_index[stream_ids[n]] = position
                self._streams[self._num_streams] = Stream(stream_ids[n], -1, 0, -1, 0)
                self._num_streams += 1
            table_out[n] = position
        return table

    def _make_room(self, Py_ssize_t num_new):
        """Forget the streams whose rows are all overwritten; double the room for the others."""
        known = self.streams()
        alive = known[known["open"] >= self.written - self.capacity]
        room = np.zeros(2 * (len(alive) + num_new), STREAM_DTYPE)
        room[: len(alive)] = alive
        self._set_streams(room, len(alive))

    cdef int64_t _meet_streams(
        self, const int64_t[::1] table, const int64_t[::1] first_step, Py_ssize_t num_rows
    ):
        """Mark the streams that do not continue (next_step = -1); how many rows will be written.

        A stream goes on if its numbers do, and if its open row outlives this fragment.
        """
        cdef Py_ssize_t n, num_streams = table.shape[0]
        cdef int64_t num_written = num_rows * num_streams
        cdef int64_t oldest = self.written + (num_rows + 1) * num_streams - self.capacity
        cdef Stream* stream
        for n in range(num_streams):
            stream = &self._streams[table[n]]
            if stream.open < 0 or stream.open < oldest or stream.next_step != first_step[n]:
                self.num_gaps += stream.open >= 0
                stream.next_step = -1
                num_written += 1
        return num_written

    cdef int64_t _evict(self, int64_t num_written, int64_t[::1] changed) noexcept nogil:
        """Give up the rows that will be overwritten, and the transitions that need their frames."""
        cdef int64_t first = max(<int64_t>0, self.written - self.capacity)
        cdef int64_t last = self.written + num_written - self.capacity
        cdef int64_t count = 0, sequence, slot, _i
        cdef Row* row
        for sequence in range(first, last):
            slot = sequence % self.capacity
            row = &self._rows[slot]
            if row.kind == READY:
                changed[count] = slot
                count += 1
            row.kind = EMPTY
            for _i in range(self.stack - 1):
                if row.ahead == 0:
                    break
                slot = self._slot_ahead(slot, row.ahead)
                row = &self._rows[slot]
                if row.kind == READY:
                    row.kind = LOST
                    changed[count] = slot
                    count += 1
        return count

    cdef int64_t _begin_histories(
        self, const int64_t[::1] table, const int64_t[::1] first_step, int64_t num_written,
        int64_t[::1] frame_slots, int64_t[::1] changed, int64_t count,
    ) noexcept nogil:
        """Close what a gap has cut off, and open a first row where a stream does not go on."""
        cdef int64_t oldest = self.written + num_written - self.capacity
        cdef Py_ssize_t n
        cdef Stream* stream
        for n in range(table.shape[0]):
            stream = &self._streams[table[n]]
            self._forget_overwritten(stream, oldest)
            if stream.next_step >= 0:
                frame_slots[n] = -1
                continue
            if stream.open >= max(oldest, <int64_t>0):
                self._rows[stream.open % self.capacity].kind = STOP
                count = self._flush(stream, oldest, changed, count)
            stream.num_pending = 0
            stream.next_step = first_step[n]
            stream.open = self._open_row(0, first_step[n] != 0)
            frame_slots[n] = stream.open % self.capacity
        return count

    cdef int64_t _write(
        self, const int64_t[::1] table, const float[:, ::1] rewards,
        const uint8_t[:, ::1] terminated, const uint8_t[:, ::1] truncated,
        const uint8_t[:, ::1] reset, double reward_clip,
        int64_t[::1] row_slots, int64_t[::1] frame_slots, int64_t[::1] changed, int64_t count,
    ) noexcept nogil:
        """Fill each stream's open row and open the next one, row by row."""
        cdef Py_ssize_t t, n, num_rows = rewards.shape[0], num_streams = rewards.shape[1]
        # `written` counts on while rows are opened; what the ring holds in the end starts here.
        cdef int64_t oldest = self.written + num_rows * num_streams - self.capacity
        cdef Stream* stream
        cdef Row* row
        for t in range(num_rows):
            for n in range(num_streams):
                stream = &self._streams[table[n]]
                row = &self._rows[stream.open % self.capacity]
                row_slots[t * num_streams + n] = stream.open % self.capacity
                if reset[t, n]:
                    row.kind = STOP
                    count = self._flush(stream, oldest, changed, count)
                    stream.open = self._open_row(0, False)
                else:
                    row.reward = <float>min(max(<double>rewards[t, n], -reward_clip), reward_clip)
                    row.ended = GOES_ON
                    if terminated[t, n]:
                        row.ended = TERMINATED
                    elif truncated[t, n]:
                        row.ended = TRUNCATED
                    row.kind = PENDING
                    if stream.num_pending == 0:
                        stream.pending = stream.open
                    stream.num_pending += 1
                    row.ahead = <uint32_t>(self.written - stream.open)
                    stream.open = self._open_row(row.ahead, False)
                    if row.ended != GOES_ON:
                        count = self._flush(stream, oldest, changed, count)
                    elif stream.num_pending == self.n_step:
                        count = self._release(stream, oldest, changed, count)
                stream.next_step += 1
                frame_slots[(t + 1) * num_streams + n] = stream.open % self.capacity
        return count

    cdef int64_t _open_row(self, uint32_t back, bint torn) noexcept nogil:
        """Open the next row of the ring; its sequence number."""
        self._rows[self.written % self.capacity] = Row(back, 0, 0.0, OPEN, GOES_ON, torn)
        self.written += 1
        return self.written - 1

    cdef void _forget_overwritten(self, Stream* stream, int64_t oldest) noexcept nogil:
        """Skip pending rows that are overwritten before their window is complete."""
        cdef int64_t sequence = stream.open, count = 0
        cdef uint32_t back
        if stream.num_pending == 0 or stream.pending >= oldest:
            return
        while sequence >= oldest and count < stream.num_pending:
            back = self._rows[sequence % self.capacity].back
            if back == 0 or sequence - back < oldest:
                break
            sequence -= back
            count += 1
        stream.pending = sequence
        stream.num_pending = count

    cdef int64_t _flush(
        self, Stream* stream, int64_t oldest, int64_t[::1] changed, int64_t count
    ) noexcept nogil:
        """The windows of all pending rows end here."""
        while stream.num_pending:
            count = self._release(stream, oldest, changed, count)
        return count

    cdef int64_t _release(
        self, Stream* stream, int64_t oldest, int64_t[::1] changed, int64_t count
    ) noexcept nogil:
        """The window of the oldest pending row is complete."""
        cdef int64_t slot = stream.pending % self.capacity
        cdef Row* row = &self._rows[slot]
        if self._has_its_frames(stream.pending, oldest):
            row.kind = READY
            changed[count] = slot
            count += 1
        else:
            row.kind = LOST
        stream.pending += row.ahead
        stream.num_pending -= 1
        return count

    cdef bint _has_its_frames(self, int64_t sequence, int64_t oldest) noexcept nogil:
        """Whether all frames are there that the stack at this row shows."""
        cdef int64_t _i
        cdef Row* row
        for _i in range(self.stack - 1):
            row = &self._rows[sequence % self.capacity]
            if row.back == 0:
                return not row.torn
            sequence -= row.back
            if sequence < oldest:
                return False
        return True

    # -- reading -----------------------------------------------------------------------------

    def windows(
        self,
        const int64_t[::1] slots not None,
        const int64_t[::1] lengths not None,
        const double[::1] discounts not None,
        bint repeat_padding,
        float[::1] n_step_returns not None,
        float[::1] bootstrap_discounts not None,
        int64_t[::1] obs_slots not None,
        int64_t[::1] next_obs_slots not None,
    ):
        """Walk the windows of ready rows: Σ_{i<k} γ^i r_{t+i}, γ^k and the frames at both ends.

        Args:
            slots: (B,) of ready rows.
            lengths: (B,) steps at most, 1 to n_step each.
            discounts: (n_step + 1,) powers of γ.
            repeat_padding: What stands before a history's first frame: itself, or zeros (slot -1).
            n_step_returns, bootstrap_discounts: (B,) are filled.
            obs_slots, next_obs_slots: (B·stack,) are filled, oldest frame first.

        Raises:
            ValueError: A row is not ready, or a length or an array's size does not fit.
        """
        cdef Py_ssize_t i, size = slots.shape[0]
        cdef int64_t last
        if not (lengths.shape[0] == n_step_returns.shape[0] == bootstrap_discounts.shape[0] == size
                and obs_slots.shape[0] == next_obs_slots.shape[0] == size * self.stack
                and discounts.shape[0] > self.n_step):
            raise ValueError("the arrays of `windows` do not fit each other")
        for i in range(size):
            if not 0 <= slots[i] < self.capacity or self._rows[slots[i]].kind != READY:
                raise ValueError(f"slot {slots[i]} holds no transition that may be drawn")
            if not 1 <= lengths[i] <= self.n_step:
                raise ValueError(f"a window has 1 to {self.n_step} steps: got {lengths[i]}")
        with nogil:
            for i in range(size):
                last = self._walk(
                    slots[i], lengths[i], discounts, &n_step_returns[i], &bootstrap_discounts[i]
                )
                self._stack(slots[i], repeat_padding, &obs_slots[i * self.stack])
                self._stack(last, repeat_padding, &next_obs_slots[i * self.stack])

    cdef int64_t _walk(
        self, int64_t slot, int64_t length, const double[::1] discounts,
        float* n_step_return, float* bootstrap_discount,
    ) noexcept nogil:
        """One window; the slot of its last frame."""
        cdef double total = 0.0
        cdef int64_t i = 0
        cdef Row* row = &self._rows[slot]
        while True:
            total += discounts[i] * row.reward
            i += 1
            slot = self._slot_ahead(slot, row.ahead)
            if row.ended != GOES_ON or i == length or self._rows[slot].kind == STOP:
                break
            row = &self._rows[slot]
        n_step_return[0] = <float>total
        bootstrap_discount[0] = 0.0 if row.ended == TERMINATED else <float>discounts[i]
        return slot

    cdef void _stack(self, int64_t slot, bint repeat_padding, int64_t* out) noexcept nogil:
        """The slots of the frames that the observation at `slot` stacks."""
        cdef int64_t i
        cdef uint32_t back
        for i in range(self.stack - 1, -1, -1):
            out[i] = slot
            if slot >= 0:
                back = self._rows[slot].back
                if back:
                    slot = self._slot_back(slot, back)
                elif not repeat_padding:
                    slot = -1

    cdef inline int64_t _slot_ahead(self, int64_t slot, uint32_t distance) noexcept nogil:
        slot += distance
        return slot - self.capacity if slot >= self.capacity else slot

    cdef inline int64_t _slot_back(self, int64_t slot, uint32_t distance) noexcept nogil:
        slot -= distance
        return slot + self.capacity if slot < 0 else slot

    # -- ids ---------------------------------------------------------------------------------

    def ids(self, const int64_t[::1] slots not None, int64_t[::1] out not None):
        """The ids of the rows in `slots`, into `out`."""
        cdef Py_ssize_t i
        cdef int64_t newest = self.written - 1
        cdef int64_t newest_slot = newest % self.capacity
        cdef int64_t age
        if out.shape[0] != slots.shape[0]:
            raise ValueError("one id per slot")
        for i in range(slots.shape[0]):
            age = newest_slot - slots[i]
            if age < 0:
                age += self.capacity
            out[i] = self.first_id + newest - age

    def resolve(self, const int64_t[::1] ids not None):
        """The slots (B,) of the transitions with these ids, -1 where stale, and how many are stale.

        An id is stale if its transition can't be drawn any more, or is of another incarnation.

        Raises:
            ValueError: An id was never given out here.
        """
        cdef Py_ssize_t i
        cdef int64_t sequence, slot
        cdef int64_t oldest = self.written - self.capacity
        cdef int64_t incarnation = self.first_id >> SEQUENCE_BITS
        cdef int64_t num_stale = 0
        slots = np.empty(ids.shape[0], np.int64)
        cdef int64_t[::1] slots_out = slots
        for i in range(ids.shape[0]):
            sequence = ids[i] - self.first_id
            slot = -1
            if ids[i] >> SEQUENCE_BITS == incarnation and sequence < self.written:
                slot = sequence % self.capacity
                if sequence < oldest or self._rows[slot].kind != READY:
                    slot = -1
            elif not self._may_be_older(ids[i]):
                raise ValueError(
                    f"ids must come from this buffer's batches: got {ids[i]}, which it never gave "
                    "out; hand back the ids of the TransitionBatch unchanged"
                )
            slots_out[i] = slot
            num_stale += slot < 0
        return slots, num_stale

    cdef bint _may_be_older(self, int64_t id_):
        """Whether another incarnation of this shard may have given out this id."""
        cdef int64_t own = self.first_id >> SEQUENCE_BITS, other = id_ >> SEQUENCE_BITS
        return id_ >= 0 and other != own and other >> INCARNATION_BITS == own >> INCARNATION_BITS

    # -- state -------------------------------------------------------------------------------

    def ready_slots(self):
        """The slots of all transitions that may be drawn, ascending."""
        return np.flatnonzero(self.rows["kind"] == READY)

    def streams(self):
        """The streams' table, without its spare room; not a copy."""
        return self._stream_array[: self._num_streams]

    cdef _set_streams(self, array, int64_t num_streams=0):
        self._stream_array = array
        self._streams = array
        self._num_streams = num_streams
        self._stream_index = {
            int(stream_id): i for i, stream_id in enumerate(array["stream_id"][:num_streams])
        }

    def load(self, int64_t written, int64_t num_gaps, rows, streams):
        """Take over another ring's rows and streams.

        Raises:
            ValueError: They can't be those of a ring of this capacity; nothing has changed.
        """
        pending = streams["pending"][streams["num_pending"] > 0]
        newest = np.concatenate([streams["open"], pending])
        if not (
            written >= 0
            and rows.dtype == ROW_DTYPE
            and streams.dtype == STREAM_DTYPE
            and rows.shape == (min(written, self.capacity),)
            and max(rows["back"].max(initial=0), rows["ahead"].max(initial=0)) < self.capacity
            and newest.max(initial=-1) < written
            and pending.min(initial=0) >= 0
        ):
            raise ValueError("the rows and streams of the state contradict each other")
        self.written = written
        self.num_gaps = num_gaps
        self.rows[: len(rows)] = rows
        self.rows[len(rows):] = np.zeros((), ROW_DTYPE)
        self._set_streams(streams.copy(), len(streams))
        self.num_ready = len(self.ready_slots())
