"""Numbers in sentences."""

from __future__ import annotations

import math

from topo_callback.wording import counted, duration, percent, plain_percent, rounded, with_interval


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


def test_nothing_is_never_negative() -> None:
    assert with_interval(-0.02, 0.1) == "0.0 ± 0.2"
    assert with_interval(-0.2, 1.5) == "0 ± 3"
    assert percent(-1e-4, 0.01) == "0 ± 2 %"
    assert (rounded(-0.0), plain_percent(-0.0)) == ("0", "0 %")
    assert with_interval(-0.26, 0.1) == "-0.3 ± 0.2"


def test_a_number_has_two_digits_and_no_exponent_where_people_need_none() -> None:
    values = (
        0.0,
        1.234e-5,
        0.000123,
        0.0567,
        9.96,
        34.5,
        99.4,
        99.6,
        100.0,
        153.0,
        12345.6,
        -250.0,
        1e9,
        math.inf,
        math.nan,
    )
    assert [rounded(value) for value in values] == [
        "0", "1.2e-05", "0.00012", "0.057", "10", "34", "99", "100", "100", "153", "12\N{NO-BREAK SPACE}346", "-250",
        "1e+09", "inf", "nan",
    ]  # fmt: skip


def test_a_duration_is_in_the_unit_that_people_would_use() -> None:
    seconds = (0.034, 5.7, 101.0, 119.0, 119.7, 120.0, 630.0, 7100.0, 7200.0, 100_000.0)
    assert [duration(each) for each in seconds] == [
        "0.034 s", "5.7 s", "101 s", "119 s", "2 min", "2 min", "10 min", "118 min", "2 h", "28 h",
    ]  # fmt: skip
