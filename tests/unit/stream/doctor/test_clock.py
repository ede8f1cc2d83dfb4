from __future__ import annotations

import pytest

from stream.doctor.clock import compared


@pytest.mark.parametrize(("newest", "well"), [(-1.0, True), (1000.0, True), (1004.0, True), (1006.0, False)])
def test_an_event_from_the_future_tells_of_a_clock_that_is_behind(newest: float, well: bool) -> None:
    finding = compared(newest, now=1000.0)
    assert finding.well is well
    assert bool(finding.remedy) is not well
