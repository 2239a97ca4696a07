"""The Trainer's function for training on several nodes: stages the inputs, runs a TFJob and exports the model."""

import copy
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attr
from tfx.components.trainer.fn_args_utils import FnArgs

from pipeline.kubeflow.names import STAGING_ROOT_VARIABLE, TRAINING_JOB
from pipeline.kubeflow.pods.training_job import run_training_job
from pipeline.kubeflow.tfjob import Manifest
from schema.artifacts import COUNTS_FILE, JOB_FILE
from trainer import module
from trainer.fitting.arguments import training_folder
from trainer.fitting.checkpoint import load_checkpoint
from trainer.fitting.several_machines import write_job


def run_fn(fn_args: FnArgs) -> None:
    """Like `trainer.module.run_fn`, but trains in the TFJob of `custom_config`; a rehearsal trains in this process."""
    custom_config = dict(fn_args.custom_config)
    job = custom_config.pop(TRAINING_JOB)
    if STAGING_ROOT_VARIABLE not in os.environ:
        elsewhere = {"distribution": "auto", "checkpoint_folder": f"{job['folder']}/checkpoints"}
        custom_config["trainer"] = {**custom_config["trainer"], **elsewhere}
    fn_args = attr.evolve(fn_args, custom_config=custom_config)
    if STAGING_ROOT_VARIABLE not in os.environ:
        _train_in_a_job(fn_args, job["manifest"])
    module.run_fn(fn_args)  # finds the finished checkpoint and exports it


def _train_in_a_job(fn_args: FnArgs, manifest: Manifest) -> None:
    """Write a finished checkpoint to the shared folder, and the training curves to `model_run_dir`."""
    checkpoint = Path(training_folder(fn_args))
    stored = load_checkpoint(str(checkpoint))
    if stored and stored[0].finished:
        return
    name = job_name(fn_args.custom_config["name"], checkpoint.name)
    shared = checkpoint.parent.parent
    with _staged(fn_args, shared, name) as job_file:
        run_training_job(complete_manifest(manifest, name, job_file), os.environ)
        shutil.copytree(job_file.parent / "model_run", fn_args.model_run_dir, dirs_exist_ok=True)
    for abandoned in shared.glob(f"{name}.*"):  # by pods that were killed
        shutil.rmtree(abandoned)


def job_name(pipeline: str, identity: str) -> str:
    """Identical for the same training, so that two jobs never write one checkpoint; leaves room for service names."""
    return f"train-{pipeline[:30].rstrip('-')}-{identity[:12]}"


def complete_manifest(manifest: Manifest, name: str, job_file: Path) -> Manifest:
    """A copy of the compiled manifest with the job's name and the file that describes the training."""
    manifest = copy.deepcopy(manifest)
    manifest["metadata"]["name"] = name
    [container] = manifest["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    container["args"] = [str(job_file)]
    return manifest


@contextmanager
def _staged(fn_args: FnArgs, shared: Path, name: str) -> Iterator[Path]:
    """Copy the Trainer's inputs to the shared folder during training; yields the file that describes the training."""
    shared.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=shared))
    try:
        patterns = {}
        for name, given in (("train_files", fn_args.train_files), ("eval_files", fn_args.eval_files)):
            [split] = (Path(pattern).parent for pattern in given)  # of the only artifact `examples`
            shutil.copytree(split, folder / split.name)
            shutil.copyfile(split.parent / COUNTS_FILE, folder / COUNTS_FILE)
            patterns[name] = [f"{folder}/{split.name}/*"]
        shutil.copytree(fn_args.transform_output, folder / "transform")
        staged = attr.evolve(
            fn_args, **patterns, transform_output=f"{folder}/transform", model_run_dir=f"{folder}/model_run"
        )
        write_job(staged, f"{folder}/{JOB_FILE}")
        yield folder / JOB_FILE
    finally:
        shutil.rmtree(folder, ignore_errors=True)
