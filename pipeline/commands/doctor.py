"""`autoencoder doctor`: checks this machine and the runs on it."""

import dataclasses
import json
import sys
from pathlib import Path

import click

from pipeline.commands.options import PATH, RUNS, json_option
from pipeline.errors import Command
from runtime.errors import DONE, FAILED


@click.command(cls=Command)
@click.option("--root", type=PATH, default=RUNS, help="Folder of the runs.")
@json_option
def doctor(root: Path, as_json: bool) -> None:
    """Check this machine, and print a remedy for every problem.

    Exit codes: 0 nothing is broken; 1 something is broken.
    """
    from rich.text import Text

    from pipeline.local.doctor import BROKEN, MISSING, OK, examine
    from pipeline.terminal import plain_console

    marks = {OK: ("✓", "green"), MISSING: ("–", "yellow"), BROKEN: ("✗", "red")}
    console = plain_console()
    findings = []
    for finding in examine(root):
        findings.append(finding)
        if as_json:
            continue
        mark, style = marks[finding.state]
        console.print(Text.assemble((mark, style), f" {finding.what:<26} {finding.detail}"))
        if finding.remedy and finding.state != OK:
            console.print(Text(f"    → {finding.remedy}", style=style))
    broken = sum(finding.state == BROKEN for finding in findings)
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        console.print(f"\n{broken} broken" if broken else "\nnothing is broken")
    sys.exit(FAILED if broken else DONE)
