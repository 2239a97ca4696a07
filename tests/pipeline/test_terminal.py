"""The terminal shows progress and results, and nothing else."""

import io
import logging
import os
import re
import subprocess
import sys
import time

from repository import REPOSITORY
from rich.console import Console

from pipeline import terminal
from pipeline.terminal import ComponentProgress, plain_console, plain_table, print_summary


def record(**values):
    made = logging.LogRecord("any", logging.INFO, __file__, 1, "message", None, None)
    made.__dict__.update(values)
    return made


def test_a_component_that_ran_shows_its_work_and_duration():
    out = io.StringIO()
    progress = ComponentProgress(Console(file=out, width=100), {})
    progress.start("Trainer")
    progress.emit(record(done=3, total=5, unit="epochs", detail="loss 0.1"))
    progress.stop("ran", 12.34)
    assert out.getvalue().split() == ["✓", "Trainer", "ran", "12.3", "s", "5", "epochs"]


def test_a_component_that_reports_nothing_for_long_still_gets_a_line(monkeypatch):
    """So "about 16 s left" is not the last word while the last step takes long."""
    monkeypatch.setattr(terminal, "_LONGEST_SILENCE_S", 0.1)
    monkeypatch.setattr(terminal, "_PLAIN_INTERVAL_S", 0.0)
    out = io.StringIO()
    progress = ComponentProgress(Console(file=out, width=100), {"Pusher": 100.0})
    progress.start("Trainer")
    progress.emit(record(done=0, total=10, unit="steps"))
    time.sleep(0.25)
    progress.emit(record(done=2, total=10, unit="steps"))
    time.sleep(0.25)
    progress.stop("ran", 12.34)
    *lines, ended = (" ".join(line.split()[3:]) for line in out.getvalue().splitlines())  # without name and time
    assert ended == "12.3 s 10 steps"
    [first_step] = [
        number for number, line in enumerate(lines) if re.fullmatch(r"2 of 10 steps about \d+ s left", line)
    ]
    assert lines[0] == "0 of 10 steps"
    assert set(lines[1:first_step]) == {"0 of 10 steps still working"}
    assert set(lines[first_step + 1 :]) == {"2 of 10 steps still working"}

    progress.start("Pusher")
    time.sleep(0.25)
    progress.abort()
    shown = out.getvalue().splitlines()
    assert re.fullmatch(r"Pusher +0 s  still working", shown[-1])
    time.sleep(0.25)
    assert out.getvalue().splitlines() == shown


def test_native_output_goes_to_the_log_and_our_output_to_the_terminal(tmp_path):
    script = (
        "import os\nfrom pathlib import Path\nfrom pipeline.terminal import output_to_log\n"
        f"with output_to_log(Path({str(tmp_path / 'run.log')!r})) as (out, err):\n"
        "    os.write(1, b'native out\\n'); os.write(2, b'native err\\n'); print('printed')\n"
        "    out.write('shown\\n'); err.write('warned\\n')\n"
        "print('after')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "shown\nafter\n"
    assert ran.stderr == "warned\n"
    assert set((tmp_path / "run.log").read_text().splitlines()) == {"native out", "native err", "printed"}


def test_brackets_in_names_and_labels_are_printed_literally():
    out = io.StringIO()
    row = {"metric": "ssim", "label": "[/b]", "origin": "configured", "min": 0.9, "max": None, "value": 0.5}
    document = {
        "thresholds": [{**row, "passed": False, "reason": "ssim of [b]:smile: is 0.5", "remedy": "train"}],
        "purpose": None,
        "metrics": {},
        "kinds": [],
        "reviewed": {},
        "changes": {},
        "warnings": [],
        "pushed": None,
        "not_pushed_because": "[/red]",
        "images": {},
        "model": {},
        "paths": {"report": "/runs/[new]/report.html"},
    }
    print_summary(plain_console(out), document)
    for text in ("label [/b]", "ssim of [b]:smile: is 0.5", "nothing was pushed: [/red]", "/runs/[new]/report.html"):
        assert text in out.getvalue()


def test_names_and_labels_cannot_control_the_terminal():
    out = io.StringIO()
    console = plain_console(out)
    table = plain_table(["label"], right=())
    table.add_row("\x1b[31mred")
    console.print("skipped 1 .\x1b[2J file", style="red")
    console.print(table)
    assert list(map(str.rstrip, out.getvalue().splitlines())) == ["skipped 1 .%1B[2J file", "label", "%1B[31mred"]


def test_the_summary_shows_refused_bounds_and_that_nothing_was_pushed():
    out = io.StringIO()
    row = {"metric": "ssim", "label": "7", "origin": "configured", "min": 0.9, "max": None, "value": 0.5}
    document = {
        "thresholds": [
            {
                **row,
                "passed": False,
                "reason": "ssim over images labelled '7' is 0.5, below the bound 0.9",
                "remedy": "train longer",
            }
        ],
        "purpose": "detect",
        "metrics": {"mean_error": 0.01, "alarms_at_blur": 0.125, "alarms_at_shift_1": 0.0},
        "steadiness_images": 32,
        "kinds": [
            {"label": label, "auroc": 0.544, "images": 1025, "found": 2}
            for label in ("stain", "[b]", "c", "d", "e", "f")
        ],
        "reviewed": {},
        "changes": {},
        "warnings": ["the model finds 13 % of [b] (docs/scores.md)"],
        "pushed": None,
        "not_pushed_because": None,
        "images": {"train": 1419, "eval": 197, "test": 181, "rejected": 3, "duplicates": 0},
        "model": {"cross_fitted": False},
        "paths": {},
    }
    print_summary(plain_console(out), document)
    lines = out.getvalue().splitlines()
    assert "refused: ssim over images labelled '7' is 0.5, below the bound 0.9; train longer" in lines
    assert "warning: the model finds 13 % of [b] (docs/scores.md)" in lines
    assert "purpose      detect" in lines
    assert "steadiness   12.5 % of the normal images (4 of 32) raise an alarm at worst (blur)" in lines
    assert (
        "found        stain 2 of 1,025 (AUROC 0.544), [b] 2 of 1,025 (AUROC 0.544), c 2 of 1,025 (AUROC 0.544), "
        "d 2 of 1,025 (AUROC 0.544), e 2 of 1,025 (AUROC 0.544), 1 more in the report"
    ) in lines
    assert not any(line.startswith("alarms_at") for line in lines)
    assert any(line.split()[:5] == ["ssim", "label", "7", "0.5", ">="] for line in lines)
    assert "images       train 1,419, eval 197, test 181, rejected 3" in lines
    assert any(line.split() == ["model", "nothing", "was", "pushed"] for line in lines)


def test_the_summary_says_where_all_images_train_and_calibrate():
    out = io.StringIO()
    document = {
        "thresholds": [], "purpose": "detect", "metrics": {}, "kinds": [], "reviewed": {}, "changes": {},
        "warnings": [], "images": {"train": 45, "eval": 0, "test": 70}, "model": {"cross_fitted": True}, "paths": {},
        "pushed": "/runs/1",
    }  # fmt: skip
    print_summary(Console(file=out, width=120), document)
    assert "images       train 45 (all calibrate, too), test 70" in out.getvalue().splitlines()


def test_the_summary_shows_what_has_changed_and_how_both_models_judge_reviewed_images():
    rates = {
        "auroc": {"value": 0.95, "interval": [0.9, 0.98]},
        "recall": {"count": 8, "of": 10, "interval": [0.44, 0.97]},
        "false_alarms": {"count": 0, "of": 4, "interval": [0.0, 0.6]},
    }
    comparison = {
        "verdict": "better",
        "auroc": {"difference": 0.25, "p_value": 0.004},
        "right_alarms": {"difference": 0.1, "p_value": 0.0625},
    }
    last = {**rates, "auroc": None, "false_alarms": None}
    document = {
        "thresholds": [],
        "purpose": None,
        "metrics": {},
        "kinds": [],
        "reviewed": {"defects": 10, "normal": 4, "this_model": rates, "last_model": last, "comparison": comparison},
        "warnings": [],
        "changes": {"threshold": [0.51234, 0.5], "score": ["error", "ssim"], "reviewed images": [0, 14]},
        "pushed": None,
        "not_pushed_because": None,
        "images": {},
        "model": {},
        "paths": {},
    }
    out = io.StringIO()
    print_summary(plain_console(out), document)
    lines = out.getvalue().splitlines()
    assert "changed      threshold 0.5123 -> 0.5, score error -> ssim, reviewed images 0 -> 14" in lines
    start = lines.index("reviewed     10 defects and 4 normal images test the model:")
    assert lines[start + 1 : start + 4] == [
        "  this model AUROC 0.950 (0.900 to 0.980), defects found 8 of 10 (44 to 97 %), "
        "false alarms 0 of 4 (0 to 60 %)",
        "  last model defects found 8 of 10 (44 to 97 %)",
        "             on the reviewed images, this model is better: AUROC +0.250 (p-value 0.004), "
        "share of right verdicts +0.100 (p-value 0.062)",
    ]
