"""Numbers in sentences."""

from __future__ import annotations

from topo_callback.wording import counted, percent, plain_percent, with_interval


def test_one_of_a_kind_is_singular() -> None:
    assert [counted(number, "sample") for number in (0, 1, 2)] == ["0 samples", "1 sample", "2 samples"]
    assert counted(12345, "step") == "12\N{NO-BREAK SPACE}345 steps"


def test_numbers_have_the_digits_that_their_intervals_leave_them() -> None:
    assert [percent(0.12345, error) for error in (0.02, 0.004, 0.0004, None)] == [
        "12 ± 4 %", "12.3 ± 0.8 %", "12.35 ± 0.08 %", "12 %",
    ]  # fmt: skip
    assert [plain_percent(share) for share in (0.0, 0.004, 0.3, 1.0)] == ["0 %", "0.4 %", "30 %", "100 %"]
    assert with_interval(1.095, 0.016) == "1.09 ± 0.03"
    assert with_interval(3.0, 0.0) == "3 ± 0"
    assert with_interval(4e-7, 1e-8) == "4e-07 ± 2e-08"
    assert percent(1e-4, 1e-5, 2e-4) == "below 0.02 %"
