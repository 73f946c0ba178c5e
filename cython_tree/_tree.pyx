# SPDX-License-Identifier: MIT
"""A segment tree that keeps the sum, the smallest positive and the largest of its leaves.

Leaves stand in item order, in groups of FAN_OUT, and every inner node is recomputed from its group:

    level 2      [ node 0                                   node 1 .. ]     sum · min · max
                   |                                          |
    level 1      [ node 0     node 1     ..  node 7 ]  [ node 8 .. ]        sum · min · max
                   |            |              |           |
    leaves       [ 0 .. 7 ]  [ 8 .. 15 ]  [ 56 .. 63 ] [ 64 .. ]            value

Levels end where the leaves end: none is padded to a power of FAN_OUT. The root is a field.
"""

import operator

import numpy as np

cimport cython
from cpython.buffer cimport (
    PyBUF_RECORDS_RO,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.math cimport INFINITY, isfinite, nextafter
from libc.stdint cimport int64_t, uint8_t

cdef extern from "_kernels.h" nogil:
    enum:
        FAN_OUT
        FAN_OUT_BITS
    int64_t place_of(int64_t node)
    void prefer_huge_pages(char *memory, int64_t nbytes)
    void PREFETCH(const void *address)
    void ASSERT "assert"(bint condition)

cdef extern from "_avx512.h" nogil:
    void tree_descend(
        const double *children, const double *below, int stride_below, int64_t *nodes,
        double *targets, int64_t count,
    )
    void tree_descend_to_leaves(
        const double *leaves, int64_t size, int64_t *nodes, double *targets, int64_t count
    )
    void tree_repair_from_leaves(
        const double *leaves, int64_t size, double *level, const int64_t *nodes, int64_t count
    )
    void tree_repair(const double *children, double *level, const int64_t *nodes, int64_t count)

cdef extern from "_weights.h" nogil:
    void tree_importance_weights(
        const double *masses, double unit, double beta, float *weights, int64_t count
    )

cdef enum:
    # Targets that descend together: their groups wait in the first-level cache.
    BLOCK = 64
    LINE = 64  # bytes of a cache line
    # Below this the tree is in the first-level cache anyway, and padding would outweigh it.
    ALIGNED_CAPACITY = 1024

cdef object INT64 = np.dtype(np.int64)
cdef object FLOAT32 = np.dtype(np.float32)
cdef object FLOAT64 = np.dtype(np.float64)
cdef object empty = np.empty


@cython.final
cdef class SumTree:
    """Float64 leaves, all 0 at first; their sum, smallest positive and largest kept together.

    Parents are recomputed from their children, never adjusted: after any history every node is
    that of a tree built afresh, bit for bit. `set` only writes leaves and remembers their parents;
    whatever reads the tree first repairs it, each parent once however many writes lie below it.

    Not thread-safe: one owner. Loops run without the GIL. Pickles as (capacity, leaves).

    Args:
        capacity: Number of leaves, at least 1; any number, not only powers of two.
    """

    def __cinit__(self, capacity):
        self.capacity = operator.index(capacity)
        if self.capacity < 1:
            raise ValueError(f"`capacity` must be at least 1: got {capacity}")
        self._allocate()

    def __dealloc__(self):
        PyMem_RawFree(self.memory)

    def __len__(self):
        return self.capacity

    def __repr__(self):
        return f"SumTree(capacity={self.capacity}, total={self.total!r})"

    def __reduce__(self):
        return _restore, (self.capacity, self.get(np.arange(self.capacity)))

    def set(self, indices, values):
        """Write leaves; of repeated indices the last wins. All or nothing. O(B) and no repair.

        Args:
            indices: int64 (B,) in [0, capacity).
            values: float64 (B,), finite and at least 0.
        Raises:
            IndexError: an index is outside.
            ValueError: a value is negative or not finite, or the lengths differ.
        """
        cdef Py_buffer index_view, value_view
        cdef const int64_t *index
        cdef const double *value
        cdef Py_ssize_t count, i, first_bad
        borrow(indices, &index_view, INT64, b"lq", "`indices`")
        try:
            borrow(values, &value_view, FLOAT64, b"d", "`values`")
            try:
                index, value = <const int64_t *> index_view.buf, <const double *> value_view.buf
                count = index_view.shape[0]
                if value_view.shape[0] != count:
                    raise ValueError(
                        "`indices` and `values` must be of one length: "
                        f"got {count} and {value_view.shape[0]}"
                    )
                with nogil:
                    first_bad = self._first_refused(index, value, count)
                    if first_bad < 0:
                        for i in range(count):
                            self._write(index[i], value[i])
                if first_bad >= 0:
                    self._refuse(index[first_bad], value[first_bad], first_bad)
            finally:
                PyBuffer_Release(&value_view)
        finally:
            PyBuffer_Release(&index_view)

    def get(self, indices):
        """The values of leaves: float64 (B,) for int64 (B,) indices in [0, capacity). O(B).

        Raises:
            IndexError: an index is outside.
        """
        cdef Py_buffer index_view, value_view
        cdef const int64_t *index
        cdef double *value
        cdef Py_ssize_t count, i
        cdef Py_ssize_t first_bad = -1
        borrow(indices, &index_view, INT64, b"lq", "`indices`")
        try:
            count = index_view.shape[0]
            index = <const int64_t *> index_view.buf
            values = empty(count, FLOAT64)
            PyObject_GetBuffer(values, &value_view, PyBUF_RECORDS_RO)
            value = <double *> value_view.buf
            with nogil:
                for i in range(count):
                    if not 0 <= index[i] < self.capacity:
                        first_bad = i
                        break
                    value[i] = self.leaves[index[i]]
            PyBuffer_Release(&value_view)
            if first_bad >= 0:
                self._refuse(index[first_bad], 0.0, first_bad)
            return values
        finally:
            PyBuffer_Release(&index_view)

    def __getitem__(self, index):
        return self.leaves[self._leaf(index)]

    def __setitem__(self, index, value):
        cdef double number = value
        cdef Py_ssize_t leaf = self._leaf(index)
        if not (number >= 0.0 and isfinite(number)):
            self._refuse(leaf, number, 0)
        self._write(leaf, number)

    def find(self, targets):
        """The smallest leaf whose running sum exceeds each target. O(B log capacity).

        Running sums add up group by group on the way down, so they may differ from a plain
        cumulative sum in the last bits; where the sums are exact, so is the answer. A leaf of
        value 0 is never returned, whatever the rounding.

        Args:
            targets: float64 (B,) in [0, total).
        Returns:
            int64 (B,).
        Raises:
            ValueError: a target is outside.
        """
        cdef Py_buffer view
        cdef double *target
        cdef Py_ssize_t i
        cdef Py_ssize_t first_bad = -1
        # A copy: the descent uses it up.
        borrow(np.array(targets, dtype=FLOAT64), &view, FLOAT64, b"d", "`targets`")
        try:
            target = <double *> view.buf
            self._repair()
            for i in range(view.shape[0]):
                if not 0.0 <= target[i] < self.root[0]:
                    first_bad = i
                    break
            if first_bad >= 0:
                raise ValueError(
                    f"`targets` must be in [0, {self.root[0]!r}), below the tree's total: "
                    f"got {target[first_bad]!r} at position {first_bad}"
                )
            return self._find_and_read(target, view.shape[0])
        finally:
            PyBuffer_Release(&view)

    def sample(self, batch_size, rng, stratified=True):
        """Draw leaves with probability proportional to value, with replacement.

        Args:
            batch_size: B >= 1.
            rng: A `numpy.random.Generator`, of which B uniform numbers are taken.
            stratified: One draw from each of B equal shares of the total, in ascending order,
                instead of B independent draws.
        Returns:
            int64 (B,). A leaf of value 0 is never drawn.
        Raises:
            RuntimeError: every leaf is 0.
            OverflowError: the values' sum is beyond float64.
        """
        return self.sample_with_values(batch_size, rng, stratified)[0]

    def sample_with_values(self, batch_size, rng, stratified=True):
        """`sample`, and the drawn leaves' values beside it: int64 (B,), float64 (B,)."""
        cdef Py_buffer view
        cdef double *target
        cdef double share, last
        cdef Py_ssize_t i, count
        cdef double stratum = 1.0 if stratified else 0.0
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1: got {batch_size}")
        self._repair()
        if not 0.0 < self.root[0] < INFINITY:
            self._refuse_to_draw()
        uniforms = rng.random(batch_size)
        borrow(uniforms, &view, FLOAT64, b"d", "`rng.random(batch_size)`")
        try:
            target = <double *> view.buf
            count = view.shape[0]
            # Rounding may carry a target up to the total, which no leaf answers to.
            last = nextafter(self.root[0], 0.0)
            share = self.root[0] / count if stratified else self.root[0]
            for i in range(count):
                target[i] = min((<int> i * stratum + target[i]) * share, last)
            return self._find_and_read(target, count), uniforms
        finally:
            PyBuffer_Release(&view)

    @property
    def total(self):
        """The sum of all leaves."""
        self._repair()
        return self.root[0]

    @property
    def min(self):
        """The smallest positive leaf, or inf if there is none."""
        self._repair()
        return self.root[FAN_OUT]

    @property
    def max(self):
        """The largest leaf."""
        self._repair()
        return self.root[2 * FAN_OUT]

    def reduce(self, start=0, end=None):
        """(sum, smallest positive or inf, largest) of the leaves in [start, end). O(log capacity).

        Raises:
            IndexError: not 0 <= start <= end <= capacity.
        """
        cdef int64_t low = start
        cdef int64_t high = self.capacity if end is None else end
        cdef double total = 0.0
        cdef double smallest = INFINITY
        cdef double largest = 0.0
        cdef int level = 0
        if not 0 <= low <= high <= self.capacity:
            raise IndexError(f"need 0 <= start <= end <= {self.capacity}: got {low} and {high}")
        self._repair()
        while True:
            # Take nodes from both ends until whole groups are left, and go on with their parents.
            while low < high and (low % FAN_OUT or level == self.top):
                self._include(level, low, &total, &smallest, &largest)
                low += 1
            while low < high and high % FAN_OUT and high < self.size[level]:
                high -= 1
                self._include(level, high, &total, &smallest, &largest)
            if low == high:
                return total, smallest, largest
            low, high = low >> FAN_OUT_BITS, num_groups(high)
            level += 1

    def check_invariants(self):
        """Assert that every node is that of a tree built afresh from the leaves, bit for bit."""
        cdef SumTree fresh = _restore(self.capacity, self.get(np.arange(self.capacity)))
        cdef int level
        self._repair()
        fresh._repair()
        assert self.num_pending == 0 and not self.stale
        for level in range(1, self.top + 1):
            for place in range(num_groups(self.size[level]) * GROUP):
                assert self.groups[level][place] == fresh.groups[level][place], (level, place)
            for byte in range(num_bytes(self.size[level])):
                assert self.dirty[level][byte] == 0, (level, byte)
        for place in range(GROUP):
            assert self.root[place] == fresh.root[place], place

    cdef int _allocate(self) except -1:
        """Number the levels, allocate them at once, and make every node one of empty leaves."""
        cdef bint aligned = self.capacity >= ALIGNED_CAPACITY
        cdef int level
        self.size[0] = self.capacity
        while self.size[self.top] > FAN_OUT:
            self.size[self.top + 1] = num_groups(self.size[self.top])
            self.top += 1
        self.nbytes = self._lay_out(NULL, aligned)
        self.memory = PyMem_RawCalloc(self.nbytes, 1)
        if self.memory == NULL:
            raise MemoryError(f"a tree of {self.capacity} leaves needs {self.nbytes} bytes")
        prefer_huge_pages(<char *> self.memory, self.nbytes)
        self._lay_out(<char *> self.memory, aligned)
        for level in range(1, self.top + 1):
            clear(self.groups[level], num_groups(self.size[level]))
        clear(self.root, 1)
        return 0

    cdef Py_ssize_t _lay_out(self, char *start, bint aligned) noexcept:
        """Point every array into the memory at `start`; returns the bytes that they take."""
        cdef char *end = start
        cdef int level
        self.leaves = <double *> take(&end, self.capacity * sizeof(double), aligned)
        for level in range(1, self.top + 1):
            self.groups[level] = <double *> take(
                &end, num_groups(self.size[level]) * GROUP * sizeof(double), aligned
            )
        if self.top > 0:
            # One place more than there are nodes: see `enlist`.
            self.pending = <int64_t *> take(&end, (self.size[1] + 1) * sizeof(int64_t), aligned)
        for level in range(1, self.top + 1):
            self.dirty[level] = <uint8_t *> take(&end, num_bytes(self.size[level]), False)
        return end - start + (LINE if aligned else 0)

    cdef Py_ssize_t _leaf(self, index) except -1:
        cdef Py_ssize_t leaf = operator.index(index)
        if not 0 <= leaf < self.capacity:
            self._refuse(leaf, 0.0, 0)
        return leaf

    cdef Py_ssize_t _first_refused(
        self, const int64_t *indices, const double *values, Py_ssize_t count
    ) noexcept nogil:
        """The first position that may not be written, or -1; fetches the leaves meanwhile."""
        cdef Py_ssize_t i
        for i in range(count):
            if not (0 <= indices[i] < self.capacity and 0.0 <= values[i] < INFINITY):
                return i
            PREFETCH(&self.leaves[indices[i]])
        return -1

    cdef int _refuse(self, int64_t index, double value, Py_ssize_t position) except -1:
        if not 0 <= index < self.capacity:
            raise IndexError(
                f"indices must be in [0, {self.capacity}): got {index} at position {position}"
            )
        raise ValueError(
            f"values must be finite and at least 0: got {value!r} at position {position}"
        )

    cdef int _refuse_to_draw(self) except -1:
        if self.root[0] == 0.0:
            raise RuntimeError("every leaf is 0, so there is nothing to draw: set one first")
        raise OverflowError("the leaves' sum is beyond float64: scale the values down")

    cdef inline void _write(self, int64_t index, double value) noexcept nogil:
        """Write one leaf and remember its parent."""
        ASSERT(0 <= index < self.capacity)
        self.leaves[index] = value
        self.stale = True
        if self.top > 0:
            self.num_pending += enlist(
                self.dirty[1], index >> FAN_OUT_BITS, self.pending, self.num_pending
            )

    cdef void _repair(self) noexcept nogil:
        """Recompute every parent of a changed node once, level by level.

        The list of a level's parents takes the place of the list it is made from: it is shorter.
        """
        cdef int64_t count = self.num_pending
        cdef int64_t *nodes = self.pending
        cdef int64_t root = 0
        cdef int level
        if not self.stale:
            return
        for level in range(1, self.top + 1):
            self._recompute(level, self.groups[level], nodes, count)
            count = self._parents(level, nodes, count)
        self._recompute(self.top + 1, self.root, &root, 1)
        self.num_pending = 0
        self.stale = False

    cdef void _recompute(
        self, int level, double *groups, const int64_t *nodes, int64_t count
    ) noexcept nogil:
        if level == 1:
            tree_repair_from_leaves(self.leaves, self.capacity, groups, nodes, count)
        else:
            tree_repair(self.groups[level - 1], groups, nodes, count)
        self.num_repaired += count

    cdef int64_t _parents(self, int level, int64_t *nodes, int64_t count) noexcept nogil:
        """Replace repaired nodes by their parents, each once; returns how many."""
        cdef int64_t num_parents = 0
        cdef int64_t i
        for i in range(count):
            ASSERT(0 <= nodes[i] < self.size[level])
            self.dirty[level][nodes[i] >> 3] = 0
            if level < self.top:
                num_parents += enlist(
                    self.dirty[level + 1], nodes[i] >> FAN_OUT_BITS, nodes, num_parents
                )
        return num_parents

    cdef object _find_and_read(self, double *targets, Py_ssize_t count):
        """Leaves for valid targets, which are overwritten by those leaves' values."""
        cdef Py_buffer view
        cdef int64_t *index
        cdef Py_ssize_t i = 0
        indices = empty(count, INT64)
        PyObject_GetBuffer(indices, &view, PyBUF_RECORDS_RO)
        index = <int64_t *> view.buf
        with nogil:
            while i < count:
                self._descend(index + i, targets + i, min(BLOCK, count - i))
                i += BLOCK
        PyBuffer_Release(&view)
        return indices

    cdef void _descend(self, int64_t *nodes, double *targets, int64_t count) noexcept nogil:
        """From the root down in lock-step: while one target waits for memory, others move on."""
        cdef int level
        cdef int64_t i
        for i in range(count):
            nodes[i] = 0
        for level in range(self.top, 1, -1):
            tree_descend(self.groups[level], self.groups[level - 1], GROUP, nodes, targets, count)
        if self.top > 0:
            tree_descend(self.groups[1], self.leaves, FAN_OUT, nodes, targets, count)
        tree_descend_to_leaves(self.leaves, self.capacity, nodes, targets, count)

    cdef void _include(
        self, int level, int64_t node, double *total, double *smallest, double *largest
    ) noexcept:
        """Take one node into a running (sum, smallest positive, largest)."""
        cdef double *place = &self.groups[level][place_of(node)] if level > 0 else NULL
        cdef double low = place[FAN_OUT] if level > 0 else self.leaves[node]
        cdef double high = place[2 * FAN_OUT] if level > 0 else self.leaves[node]
        total[0] += place[0] if level > 0 else self.leaves[node]
        if 0.0 < low < smallest[0]:
            smallest[0] = low
        if high > largest[0]:
            largest[0] = high


def _restore(capacity, values):
    """The tree that was pickled."""
    tree = SumTree(capacity)
    tree.set(np.arange(capacity), values)
    return tree


def importance_weights(masses, unit_mass, beta):
    """(unit_mass / masses)^beta, the importance weight where `unit_mass` is the mass of weight 1.

    w_i = (N·P(i))^−β, divided by its maximum or not (Schaul et al. 2016, §3.4), with P(i) = m_i/Σm:
    `unit_mass` is the tree's `min` to scale by the buffer's largest weight, `masses.min()` to scale
    by the batch's, and Σm/N not to scale. Relative error at most 1e-7: that of float32.

    Args:
        masses: float64 (B,), positive and finite.
        unit_mass: Positive and finite.
        beta: β, at least 0.
    Returns:
        float32 (B,).
    Raises:
        ValueError: an argument is out of range.
    """
    cdef Py_buffer mass_view, weight_view
    cdef const double *mass
    cdef double unit = unit_mass
    cdef double exponent = beta
    cdef Py_ssize_t i, count
    cdef bint valid = 0.0 < unit < INFINITY and 0.0 <= exponent < INFINITY
    borrow(masses, &mass_view, FLOAT64, b"d", "`masses`")
    try:
        mass = <const double *> mass_view.buf
        count = mass_view.shape[0]
        for i in range(count):
            valid &= 0.0 < mass[i] < INFINITY
        if not valid:
            raise ValueError(
                "masses and `unit_mass` must be positive and finite, `beta` finite and at least 0: "
                f"got masses {masses!r}, {unit_mass} and {beta}"
            )
        weights = empty(count, FLOAT32)
        PyObject_GetBuffer(weights, &weight_view, PyBUF_RECORDS_RO)
        with nogil:
            tree_importance_weights(mass, unit, exponent, <float *> weight_view.buf, count)
        PyBuffer_Release(&weight_view)
        return weights
    finally:
        PyBuffer_Release(&mass_view)


cdef int borrow(object array, Py_buffer *view, object dtype, const char *codes, str name) except -1:
    """Borrow the memory of a contiguous one-dimensional array, or of a converted copy of it.

    The buffer protocol costs a fraction of a typed memoryview, which small batches would feel.
    """
    if isinstance(array, np.ndarray):
        PyObject_GetBuffer(array, view, PyBUF_RECORDS_RO)
        if (
            view.ndim == 1
            and view.format[0] in codes
            and view.format[1] == 0
            and (view.shape[0] <= 1 or view.strides[0] == view.itemsize)
        ):
            return 0
        PyBuffer_Release(view)
    copy = np.asarray(array)
    if copy.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional: got shape {copy.shape}")
    if copy.size and (copy.dtype.kind not in ("iu" if dtype is INT64 else "iuf")):
        raise TypeError(f"{name} must be {dtype}: got {copy.dtype}")
    PyObject_GetBuffer(np.ascontiguousarray(copy, dtype), view, PyBUF_RECORDS_RO)
    return 0


cdef inline int64_t num_groups(int64_t size) noexcept nogil:
    return (size + FAN_OUT - 1) >> FAN_OUT_BITS


cdef inline int64_t num_bytes(int64_t num_bits) noexcept nogil:
    return (num_bits + 7) >> 3


cdef inline void clear(double *groups, int64_t count) noexcept nogil:
    """Make every node of `count` groups, zeroed before, one without a positive leaf."""
    cdef int64_t group, child
    for group in range(count):
        for child in range(FAN_OUT):
            groups[group * GROUP + FAN_OUT + child] = INFINITY


cdef inline int64_t enlist(
    uint8_t *bits, int64_t node, int64_t *nodes, int64_t count
) noexcept nogil:
    """Put the node at the end of `nodes` unless its bit is set, and set it; how many were put.

    Written before it is known to count: whether a parent repeats is a coin toss that no branch
    predictor wins. So `nodes` needs one place more than there are nodes.
    """
    cdef uint8_t byte = bits[node >> 3]
    cdef uint8_t bit = 1 << (node & 7)
    nodes[count] = node
    bits[node >> 3] = byte | bit
    return not byte & bit


cdef inline void *take(char **end, Py_ssize_t nbytes, bint aligned) noexcept:
    """The next `nbytes` of memory, from a cache line's start on if aligned."""
    cdef Py_ssize_t skipped = -(<Py_ssize_t> end[0]) & (LINE - 1) if aligned else 0
    cdef char *start = end[0] + skipped
    end[0] = start + nbytes
    return start
