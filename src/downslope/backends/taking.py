"""What compiled code does with a slot table: the checks before every launch, and the steps that are counted after it.

`take` is the only place where an address is born: it reads it, together with everything that must hold for it to be
used, from descriptions of live objects that the table holds, and of gradients that the caller holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from downslope.backends.compiler import boolean, call, doubles, float64, int64, singles, words
from downslope.backends.describe import CPU, DATA, DESCRIPTION, DEVICE, KIND, OFFSET, READ_ONLY, SHAPE, STRIDES, TYPE
from downslope.backends.machine import Library
from downslope.backends.memory import ACTIVE, FIRST, KEY, LENGTH, ROW, ROWS, SIZE

ALL, SOME, OTHER_CLOCKS = 0, -1, -2
"""What `take` returns when all is well: every slot takes part, or only some have a gradient; or when a slot's count of
steps or scalar states are not those of its row. A positive number is 1 + that of a slot to be looked into."""

OF_SEED, OF_NUMBER, OF_STEP = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0x8CB92BA72F3D8DD7
MIX, MIX_AGAIN = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""What a key of random numbers is mixed with; see `_key`."""


class _Word:
    """A word of a table's head: in Python its value, in compiled code its place."""

    def __set_name__(self, owner: type[Head], name: str) -> None:
        self.at = owner.length
        owner.length += 1

    def __get__(self, head: Head | None, owner: type[Head]) -> int:
        return self.at if head is None else int(head.words[self.at])

    def __set__(self, head: Head, value: int) -> None:
        head.words[self.at] = value


class Head:
    """The first words of a table, by name. Compiled code is given a table's address and finds everything from here."""

    length = 0
    count = _Word()  # how many slots there are
    width = _Word()  # the columns of a slot: as in `memory`, and those below
    arrays = _Word()  # a slot's arrays: weights, gradient, states
    apart = _Word()  # how many of these, the last, are not like the weights: scales of codes, what is one for a row
    lengths = _Word()  # the column from which on the numbers of their elements are
    matrices = _Word()  # whether weights have to be in order, row by row
    own = _Word()  # a slot's own clocks, behind its arrays: its count of steps, its scalar states; or none
    objects = _Word()  # the column from which on the identities of arrays and clocks are, 0 for the gradient
    number = _Word()  # the column with the number of the slot's tensor among all of the optimizer's
    describe = _Word()  # how objects are looked at, as in `Describer`
    gradient = _Word()  # or 0 where every gradient has to be given
    told = _Word()
    type = _Word()
    device = _Word()  # where arrays are, as a description says it
    counted = _Word()  # whether clocks are in the host's memory and counted there, rather than where arrays are
    absent = _Word()
    clear = _Word()  # the address of `PyErr_Clear`
    seed = _Word()
    total = _Word()  # the weights of all slots
    intervals = _Word()  # how many stretches of memory the held objects lie in
    rows = _Word()  # how many rows of coefficients there are, and for each of them:
    clocks = _Word()  # the numbers in a row of clocks: the steps done, the scalar states
    clocks_at = _Word()
    active_at = _Word()  # how many of its slots take part
    scalars = _Word()  # the numbers in a row of scalars: a program's scalar inputs, its new scalar states
    scalars_at = _Word()
    coefficients_at = _Word()
    work_out = _Word()  # the addresses of a kernel's functions
    update = _Word()
    slots = _Word()  # where in the table the slots are,
    kinds = _Word()  # DLPack's dtypes of arrays and own clocks,
    spans = _Word()  # first and last byte of every stretch of held memory, in ascending order,
    scratch = _Word()  # and room for two descriptions

    def __init__(self, words: np.ndarray[Any, Any]):
        self.words = words


_library = Library(__file__)


@_library.function()
def _look(book: words, by: int64, thing: int64, at: words, writable: int64, device: int64) -> int64:
    """Describe an object at `at` by a function, and return its address; -1 if there is none to read, or to write to."""
    if book[Head.type] != 0 and words(thing + TYPE)[0] != book[Head.type]:
        return -1  # of an object that may be anything, only its type is known
    found = call(by, thing, at, book[Head.told]) & 0xFFFFFFFF
    if found != 0 and (found != READ_ONLY or writable != 0):
        call(book[Head.clear])
        return -1
    if at[DEVICE] != device:
        return -1
    return at[DATA] + at[OFFSET]


@_library.function()
def _elements(at: words) -> int64:
    count = 1
    shape = words(at[SHAPE])
    for axis in range(at[KIND] & 0xFFFFFFFF):
        count *= shape[axis]
    return count


@_library.function()
def _fills(at: words) -> boolean:
    """Whether the elements, each in a place of its own, fill the memory from the first to the last."""
    if at[STRIDES] == 0:
        return True
    axes = at[KIND] & 0xFFFFFFFF
    shape, strides = words(at[SHAPE]), words(at[STRIDES])
    elements = _elements(at)
    filled = 1  # so many elements from the first on are those of some of the axes
    for _ in range(axes):
        for back in range(axes):
            axis = axes - 1 - back
            if shape[axis] > 1 and strides[axis] == filled:
                filled *= shape[axis]
        if filled >= elements:
            return True
    return filled >= elements


@_library.function()
def _alike(at: words, other: words) -> boolean:
    """Whether two descriptions, by the same function, have the same shape and the same order in memory."""
    axes = at[KIND] & 0xFFFFFFFF
    if other[KIND] & 0xFFFFFFFF != axes:
        return False
    shape, strides = words(at[SHAPE]), words(at[STRIDES])
    other_shape, other_strides = words(other[SHAPE]), words(other[STRIDES])
    for axis in range(axes):
        if other_shape[axis] != shape[axis]:
            return False
        if at[STRIDES] != 0 and shape[axis] > 1 and strides[axis] != other_strides[axis]:
            return False
    return True


@_library.function()
def _in_order(at: words) -> boolean:
    """Whether the elements, in their order, fill the memory from the first to the last."""
    axes = at[KIND] & 0xFFFFFFFF
    shape, strides = words(at[SHAPE]), words(at[STRIDES])
    filled = 1
    for back in range(axes):
        axis = axes - 1 - back
        if at[STRIDES] != 0 and shape[axis] > 1 and strides[axis] != filled:
            return False
        filled *= shape[axis]
    return True


@_library.function()
def _has_rows(at: words, rows: int64) -> boolean:
    """Whether the first dimension has so many elements; a vector has one row."""
    if at[KIND] & 0xFFFFFFFF > 1:
        return words(at[SHAPE])[0] == rows
    return rows == 1


@_library.function()
def _key(seed: int64, number: int64, t: int64) -> int64:
    """A key of the random numbers of one tensor at one step, all bits of it mixed."""
    key = seed * OF_SEED + (number + 1) * OF_NUMBER + t * OF_STEP
    key = (key ^ (key >> 30)) * MIX
    key = (key ^ (key >> 27)) * MIX_AGAIN
    return key ^ (key >> 31)


@_library.function(objects=True)
def look(book: words, objects: words, given: int64) -> int64:
    """Describe one object that is to be written to, at the table's room for it, and return its address: see `_look`.

    With another object behind it, whatever that is, it is one that belongs into the host's memory.
    """
    return _look(
        book, book[Head.describe], objects[0], book + book[Head.scratch], 1, book[Head.device] if given == 1 else CPU
    )


@_library.function(objects=True)
def take(book: words, gradients: words, given: int64) -> int64:
    """Check every object of a launch and put the addresses of gradients and clocks into the slots.

    Runs with the interpreter's lock held, so that no other thread changes an object in the meantime.

    Args:
        book: A table; see `Head`. The addresses of weights and states, as they were when they were located, are in the
            slots; and so are the identities of weights, states and clocks, which the caller holds (0 where there is
            none yet).
        gradients: The identities of the gradients, objects that the caller holds.
        given: How many there are; with none, they are what belongs to the weights, and nobody holds them.

    Returns:
        `ALL`, `SOME`, `OTHER_CLOCKS`, or 1 + the number of the first slot with something to be looked into; in the last
        two cases nothing may be launched.
    """
    count, width, arrays, own = book[Head.count], book[Head.width], book[Head.arrays], book[Head.own]
    kinds, intervals, active = book + book[Head.kinds], book + book[Head.spans], words(book[Head.active_at])
    device, apart = book[Head.device], arrays - book[Head.apart]
    counted, describe = book[Head.counted], book[Head.describe]
    x = book + book[Head.scratch]
    other = x + DESCRIPTION
    if given != count and (given != 0 or book[Head.gradient] == 0):
        return 1
    for row in range(book[Head.rows]):
        active[row] = 0 if own > 0 else 1  # clocks that no slot has count every step
    taking_part = 0
    same_clocks = True
    pair = 2 if kinds[0] & 0xFF == 5 else 1
    gradient_size = (kinds[1] >> 8 & 0xFF) // 8 // pair
    for s in range(count):
        slot = book + book[Head.slots] + s * width
        objects = slot + book[Head.objects]
        size = slot[SIZE]
        slot[ACTIVE] = 0
        slot[LENGTH] = 0
        if given != 0 and gradients[s] == book[Head.absent]:
            continue
        if objects[0] == 0:
            return s + 1
        if _look(book, describe, objects[0], x, 1, device) != slot[FIRST] or x[KIND] >> 32 != kinds[0]:
            return s + 1
        if _elements(x) * pair != size or not _fills(x) or (slot[FIRST] <= 0 and size > 0):
            return s + 1
        if book[Head.matrices] != 0 and size > 0 and not (_has_rows(x, slot[width + ROWS]) and _in_order(x)):
            return s + 1
        lengths = slot + book[Head.lengths]
        for k in range(2, arrays):
            at = _look(book, describe, objects[k], other, 1, device)
            if at != slot[FIRST + k] or (at <= 0 and size > 0):
                return s + 1
            if other[KIND] >> 32 != kinds[k]:
                return s + 1
            if k < apart and not _alike(x, other):
                return s + 1
            if k >= apart and (_elements(other) != lengths[k - apart] or not _in_order(other)):
                return s + 1
        clocks = doubles(book[Head.clocks_at]) + slot[ROW] * book[Head.clocks]
        for j in range(own):
            at = _look(book, describe, objects[arrays + j], other, 1, CPU if counted == 1 else device)
            if at <= 0 or other[KIND] >> 32 != kinds[arrays + j] or _elements(other) != 1:
                return s + 1
            slot[FIRST + arrays + j] = at
            if counted == 0:
                continue
            value = float64(singles(at)[0]) if j == 0 else doubles(at)[0]
            due = clocks[j]
            if not (value == due or (value != value and due != due)):
                same_clocks = False
        if given == 0:
            at = _look(book, book[Head.gradient], objects[0], other, 0, device)
        else:
            at = _look(book, describe, gradients[s], other, 0, device)
        if at == -1 or other[KIND] >> 32 != kinds[1] or not _alike(x, other) or (at <= 0 and size > 0):
            return s + 1
        end = at + size * gradient_size
        low, high = 0, book[Head.intervals]
        while low < high:  # the first interval that ends after the gradient begins
            middle = (low + high) // 2
            if intervals[2 * middle + 1] > at:
                high = middle
            else:
                low = middle + 1
        if at < end and low < book[Head.intervals] and intervals[2 * low] < end:
            return s + 1
        slot[FIRST + 1] = at
        slot[LENGTH] = size
        slot[KEY] = _key(book[Head.seed], slot[book[Head.number]], int64(clocks[0]))
        slot[ACTIVE] = 1
        active[slot[ROW]] += 1
        taking_part += 1
    if not same_clocks:
        return OTHER_CLOCKS
    return ALL if taking_part == count else SOME


@_library.function(python=True)
def advance(book: words) -> None:
    """Count the step in every row that has just taken part, and write its clocks to its slots' own."""
    arrays, own, counts, width = book[Head.arrays], book[Head.own], book[Head.clocks], book[Head.scalars]
    active = words(book[Head.active_at])
    for row in range(book[Head.rows]):
        if active[row] > 0:
            clocks = doubles(book[Head.clocks_at]) + row * counts
            new = doubles(book[Head.scalars_at]) + ((row + 1) * width - counts)
            clocks[0] += 1
            for j in range(1, counts):
                clocks[j] = new[j]
    for s in range(book[Head.count]):
        slot = book + book[Head.slots] + s * book[Head.width]
        if slot[ACTIVE] == 1:
            clocks = doubles(book[Head.clocks_at]) + slot[ROW] * counts
            for j in range(own):
                if j == 0:
                    singles(slot[FIRST + arrays])[0] = clocks[0]
                else:
                    doubles(slot[FIRST + arrays + j])[0] = clocks[j]


@_library.function(objects=True)
def begin(book: words, gradients: words, given: int64) -> int64:
    """Take all objects, and have the kernel work out the coefficients of every row and its new scalar states."""
    found = take(book, gradients, given)
    if found <= 0 and found != OTHER_CLOCKS:
        call(
            book[Head.work_out],
            book[Head.rows],
            book[Head.clocks_at],
            book[Head.scalars_at],
            book[Head.coefficients_at],
        )
    return found


@_library.function(objects=True)
def step(book: words, gradients: words, given: int64) -> int64:
    """A whole step on one thread; see `take`."""
    found = begin(book, gradients, given)
    if found <= 0 and found != OTHER_CLOCKS:
        slots = book + book[Head.slots]
        call(
            book[Head.update],
            slots,
            book[Head.count],
            book[Head.width],
            book[Head.coefficients_at],
            0,
            book[Head.total],
            0,
        )
        advance(book)
    return found
