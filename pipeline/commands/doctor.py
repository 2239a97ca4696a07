"""`autoencoder doctor`: is this machine fit for the pipeline, and what to do if not."""

import dataclasses
import json
import sys
from pathlib import Path

import click

from runtime.errors import DONE, FAILED


@click.command()
@click.option("--root", type=click.Path(path_type=Path), default=Path("runs"), help="Folder of the runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def doctor(root: Path, as_json: bool) -> None:
    """Check this machine, and print the remedy for everything that is wrong.

    Exit codes: 0 all that is needed is there; 1 something is broken.
    """
    from rich.text import Text

    from pipeline.commands.terminal import plain_console
    from pipeline.local.doctor import BROKEN, MISSING, OK, examine

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
        console.print(f"\n{broken} broken" if broken else "\nall that is needed is there")
    sys.exit(FAILED if broken else DONE)
