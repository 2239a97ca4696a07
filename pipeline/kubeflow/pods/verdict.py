"""Writes a run's verdict, metrics and report to the run's own folder in the object store.

Every run has this task, and it is never cached: the results of Evaluator, Pusher and Report may come from the cache and
then be in the folder of an earlier run.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import click

from pipeline.kubeflow.names import BLESSED, PAGE_KEY, REFUSED, STAGING_ROOT_VARIABLE, SUMMARY_KEY, Message
from pipeline.kubeflow.pods.entrypoint import staged_path
from schema.artifacts import GATE_FILE, NOT_PUSHED_BECAUSE, PUSHED_DESTINATION, REPORT_FILE


def summary_of(gate: Message, pushed: Message) -> dict[str, Any]:
    """The verdict with its explanation, metrics and bounds, and where the model was pushed.

    `gate`: the Evaluator's document. `pushed`: the properties of the Pusher's artifact.
    """
    reasons = [row["reason"] for row in gate["thresholds"] if not row["passed"]]
    return {
        "verdict": BLESSED if gate["blessed"] else REFUSED,
        "explanation": "; ".join(reasons) or f"the model meets all {len(gate['thresholds'])} bounds",
        "metrics": gate["metrics"],
        "thresholds": gate["thresholds"],
        "pushed": pushed.get(PUSHED_DESTINATION) or None,
        "not_pushed_because": pushed.get(NOT_PUSHED_BECAUSE) or None,
    }


@click.command()
@click.option("--executor-input", required=True, help="Kubeflow's ExecutorInput as JSON.")
def main(executor_input: str) -> None:
    """Write the summary, the page, and the output parameters `verdict` and `explanation`."""
    given = json.loads(executor_input)
    root = os.environ.get(STAGING_ROOT_VARIABLE, "/")

    def staged(side: str, key: str) -> Path:
        [artifact] = given[side]["artifacts"][key]["artifacts"]
        return Path(staged_path(artifact["uri"], root))

    gate = json.loads((staged("inputs", "evaluation") / GATE_FILE).read_text(encoding="utf-8"))
    [pushed] = given["inputs"]["artifacts"]["pushed_model"]["artifacts"]
    summary = summary_of(gate, pushed.get("metadata", {}))
    staged("outputs", SUMMARY_KEY).write_text(json.dumps(summary, indent=2), encoding="utf-8")
    shutil.copyfile(staged("inputs", "report") / REPORT_FILE, staged("outputs", PAGE_KEY))
    for key, parameter in given["outputs"]["parameters"].items():
        Path(parameter["outputFile"]).write_text(summary[key], encoding="utf-8")
    click.echo(f"{summary['verdict']}: {summary['explanation']}")


if __name__ == "__main__":
    main()
