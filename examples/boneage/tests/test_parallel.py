"""Reading ahead: what comes in which order, how far ahead, and warnings of several threads."""

from __future__ import annotations

import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from boneage.data.parallel import read_ahead
from boneage.data.quiet import quiet
from boneage.errors import UserError


@pytest.mark.parametrize("count", [0, 1, 5, 40])
@pytest.mark.parametrize("ahead", [0, 1, 16])
def test_results_come_in_order_whoever_is_first(count: int, ahead: int) -> None:
    def slow_at_first(item: int) -> int:
        time.sleep(0.002 * (count - item) / max(count, 1))
        return item * item

    assert list(read_ahead(slow_at_first, range(count), ahead)) == [i * i for i in range(count)]


def test_it_is_so_many_items_ahead_and_no_further() -> None:
    begun = []
    results = read_ahead(begun.append, range(100), 4)
    for taken in range(1, 20):
        next(results)
        time.sleep(0.001)
        assert len(begun) <= taken + 4
    results.close()
    assert len(begun) < 30


def test_the_next_ones_are_read_while_one_is_looked_at() -> None:
    second = threading.Event()
    results = read_ahead(lambda item: second.set() if item == 1 else None, range(2), 1)
    next(results)
    assert second.wait(10)


def test_what_is_raised_comes_in_its_place() -> None:
    def read(item: int) -> int:
        if item == 3:
            raise UserError("broken")
        return item

    results = read_ahead(read, range(9), 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="broken"):
        next(results)


def test_threads_are_quiet_together_and_the_filters_stay_as_they_were() -> None:
    both = threading.Barrier(2)

    def warn(first: bool) -> None:
        if not first:
            both.wait()  # one comes and goes while the other is inside
        with quiet:
            if first:
                both.wait()
                both.wait()
            warnings.warn("of a decoder", stacklevel=1)
        if not first:
            both.wait()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(warn, (True, False)))
        assert warnings.filters == before
    assert caught == []
