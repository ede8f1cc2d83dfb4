from __future__ import annotations

import time

from stream.source.stream_clock import StreamClock


def test_it_goes_on_from_the_newest_event() -> None:
    clock = StreamClock()
    clock.advance(1000.0)
    before = clock.now()
    assert 1000.0 <= before < 1001.0
    time.sleep(0.01)
    assert clock.now() > before


def test_an_older_event_does_not_set_it_back() -> None:
    clock = StreamClock()
    clock.advance(1000.0)
    clock.advance(10.0)
    assert clock.now() >= 1000.0


def test_before_the_first_event_it_is_about_nought() -> None:
    assert 0.0 <= StreamClock().now() < 5.0
