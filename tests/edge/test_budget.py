"""Memory for pictures in hand: nobody holds more than there is, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cxr_edge import budget, machine
from cxr_edge.budget import Budget


def test_never_more_than_the_total_is_held() -> None:
    shared, held, worst = Budget(100), 0, 0
    lock = threading.Lock()

    def work(need: int) -> None:
        nonlocal held, worst
        with shared.hold(need):
            with lock:
                held += need
                worst = max(worst, held)
            time.sleep(0.001)
            with lock:
                held -= need

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [1, 30, 100, 60, 60, 40, 99, 2] * 10))
    assert held == 0
    assert 60 < worst <= 100


def test_a_large_picture_is_not_passed_for_ever() -> None:
    """Small ones that come after it wait behind it, although there would be room for them."""
    shared, order = Budget(100), []
    first, large_waits = shared.hold(50), threading.Event()
    first.__enter__()

    def take(name: str, need: int) -> None:
        if name == "large":
            large_waits.set()
        with shared.hold(need):
            order.append(name)

    large = threading.Thread(target=take, args=("large", 100))
    large.start()
    large_waits.wait()
    time.sleep(0.05)  # till it stands in the queue
    small = threading.Thread(target=take, args=("small", 1))
    small.start()
    small.join(0.05)
    assert order == []
    first.__exit__(None, None, None)
    large.join()
    small.join()
    assert order == ["large", "small"]


def test_what_can_never_be_had_is_refused_and_an_error_gives_back() -> None:
    shared = Budget(100)
    with pytest.raises(ValueError, match="101"), shared.hold(101):
        pass
    with pytest.raises(RuntimeError), shared.hold(100):
        raise RuntimeError
    with shared.hold(100):
        pass


@pytest.mark.parametrize(
    ("total", "limit", "expected"),
    [
        (8 * 2**30, None, budget.DEFAULT_BYTES),
        (512 * 2**20, None, budget.DEFAULT_BYTES),
        (8 * 2**30, 96 * 2**20, 48 * 2**20),
        (256 * 2**20, None, 128 * 2**20),
        (8 * 2**30, 8 * 2**20, budget.LEAST_BYTES),
    ],
)
def test_the_default_suits_the_box(
    monkeypatch: pytest.MonkeyPatch, total: int, limit: int | None, expected: int
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: {"MemTotal": total})
    monkeypatch.setattr(machine, "memory_limit", lambda: limit)
    assert budget.default_budget() == expected
    assert budget.isolates_by_default() == (min(total, limit or total) >= 96 * 2**20)
