"""Cron expressions as Kubeflow's server parses them."""

import pytest

from pipeline.kubeflow.client.cron import check_cron


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 2 * * *",
        "0 */15 * ? * MON-FRI",
        "30 0 0 1,15 jan-jun *",
        "0 0 9 ? * 2-6",
        "@daily",
        "@every 1h30m",
    ],
)
def test_expressions_that_kubeflow_parses_pass(expression: str) -> None:
    check_cron(expression)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("0 2 * * *", "has five fields, but Kubeflow expects six, seconds first: '0 0 2 \\* \\* \\*'"),
        ("0 0 2 * *  * *", "has 7 fields"),
        ("", "has 0 fields"),
        ("0 0 24 * * *", "hour: '24' is not in 0-23"),
        ("0 60 * * * *", "minute: '60' is not in 0-59"),
        ("0 0 0 0 * *", "day of month: '0' is not in 1-31"),
        ("0 0 0 * 13 *", "month: '13' is not in 1-12 or jan"),
        ("0 0 0 * * 7", "day of week: '7' is not in 0-6 or sun"),
        ("0 0 0 * * someday", "day of week: 'someday'"),
        ("0 0 5-2 * * *", "hour: the range '5-2' runs backwards"),
        ("0 */0 * * * *", "minute: the step in '\\*/0' must be at least 1"),
        ("0 0 *-5 * * *", "hour: '\\*-5' must look like"),
        ("0 0 -1 * * *", "hour: '-1' must look like"),
        ("@nightly", "must be one of @yearly"),
        ("@every day", "must be one of @yearly"),
    ],
)
def test_the_error_contains_the_field_and_its_range(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_cron(expression)
