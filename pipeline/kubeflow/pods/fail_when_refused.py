"""The last task of a run: fails if the gate refused the model, so that the run turns red."""

import sys

import click

from pipeline.kubeflow.names import ALWAYS, FAIL_WHEN_REFUSED, REFUSED


@click.command()
@click.option("--when", type=click.Choice(FAIL_WHEN_REFUSED), required=True, help="Whether to fail in this run.")
@click.option("--verdict", required=True, help="The run's verdict.")
@click.option("--explanation", required=True, help="The gate's reasons.")
def main(when: str, verdict: str, explanation: str) -> None:
    """Fail with the gate's reasons, or do nothing."""
    click.echo(f"{verdict}: {explanation}")
    if verdict == REFUSED and when == ALWAYS:
        click.echo(
            "This task fails to turn the run red; all other tasks have finished, and nothing was pushed. To let such "
            "runs succeed, set kubeflow.fail_when_refused: never.",
            err=True,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
