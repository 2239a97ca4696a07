"""deploy/Dockerfile matches the repository; this needs no container engine."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfile import TFX_116, copied_from_repository, instructions, stages
from repository import REPOSITORY

from pipeline.commands.serve import serve
from pipeline.kubeflow.names import USER_ID
from pipeline.kubeflow.pods import data_version, entrypoint, fail_when_refused, verdict

POD_MODULES = [module.__name__ for module in (data_version, entrypoint, fail_when_refused, verdict)]


def _copied_stages() -> list[str]:
    return [stage for stage in stages() if copied_from_repository(stage)]


@pytest.mark.parametrize("arguments", [{}, TFX_116], ids=["1.21", "1.16"])
@pytest.mark.parametrize("stage", _copied_stages())
def test_copied_files_exist_and_are_in_the_build_context(stage: str, arguments: dict[str, str]) -> None:
    allowed = (REPOSITORY / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for source, _ in copied_from_repository(stage, **arguments):
        assert (REPOSITORY / source).exists(), source
        patterns = [line[1:] for line in allowed if line.startswith("!")]
        assert any(Path(source).match(pattern) for pattern in patterns), source


def test_stages_are_defined_before_they_are_used() -> None:
    seen: list[str] = []
    for stage, steps in stages().items():
        for instruction, arguments in steps:
            source = re.match(r"--from=(\S+)", arguments)
            if instruction == "COPY" and source:
                assert source[1] in seen
        base = steps[0][1].split(" AS ")[0]
        assert base in seen or ":" in base
        seen.append(stage)
    assert seen[-3:] == ["cpu", "serving", "gpu"]


def test_packages_are_installed_by_hash_from_the_lock() -> None:
    installs = [
        command
        for instruction, arguments in instructions()
        if instruction == "RUN"
        for command in arguments.split("&&")
        if re.search(r"pip (install|sync)", command)
    ]
    for command in installs:
        assert "--require-hashes" in command or "/dist/" in command, command
    locks = [source for stage in stages() for source, _ in copied_from_repository(stage) if source.endswith(".lock")]
    locks += [one for stage in stages() for one, _ in copied_from_repository(stage, **TFX_116) if one.endswith(".lock")]
    assert len(set(locks)) == 5
    for name in locks:
        assert "--hash=sha256:" in (REPOSITORY / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [{}, TFX_116], ids=["1.21", "1.16"])
def test_the_gpu_image_finds_every_locked_cuda_library(arguments: dict[str, str]) -> None:
    [name] = [source for source, _ in copied_from_repository("environment-cuda", **arguments)]
    lock = (REPOSITORY / name).read_text(encoding="utf-8")
    locked = {name.replace("-", "_") for name in re.findall(r"^nvidia-(\S+)-cu12==", lock, re.MULTILINE)}
    environment = " ".join(arguments for instruction, arguments in stages()["gpu"] if instruction == "ENV")
    assert set(re.findall(r"/nvidia/(\w+)/", environment + "/")) == locked


def test_the_user_is_numeric_and_not_root() -> None:
    [user] = [arguments for instruction, arguments in instructions() if instruction == "USER"]
    assert user == f"{USER_ID}:{USER_ID}"


def test_the_user_has_a_group_of_its_own(tmp_path: Path) -> None:
    [command] = [arguments for instruction, arguments in stages()["base"] if instruction == "RUN"]
    files = {name: tmp_path / name for name in ("passwd", "group")}
    for name, path in files.items():
        command = command.replace(f"/etc/{name}", str(path))
    subprocess.run(["sh", "-c", command], check=True)
    [user], [group] = (path.read_text().splitlines() for path in files.values())
    assert user.split(":")[2:4] == [str(USER_ID), str(USER_ID)]
    assert group.split(":")[2] == str(USER_ID)


def test_the_servers_image_serves_the_folder_that_its_manifest_mounts() -> None:
    instructions = dict(stages()["serving"])
    command = json.loads(instructions["ENTRYPOINT"]) + json.loads(instructions["CMD"])
    assert command[:2] == ["autoencoder", "serve"]
    parsed = serve.make_context("serve", command[2:]).params
    assert (parsed["host"], parsed["own"], str(parsed["model_base_path"])) == ("0.0.0.0", True, "/models/autoencoder")


def test_the_image_contains_every_module_that_pods_run(tmp_path: Path) -> None:
    context, site = tmp_path / "context", tmp_path / "site"
    context.mkdir()
    for source, destination in copied_from_repository("package"):
        target = context / (Path(source).name if destination == "./" else destination)
        if (REPOSITORY / source).is_dir():
            shutil.copytree(REPOSITORY / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / source, target)
    install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
        ".",
    ]
    subprocess.run([sys.executable, *install], cwd=context, check=True)
    code = (
        f"import importlib.resources, {', '.join(POD_MODULES)}\n"
        "print(importlib.resources.files('schema').joinpath('schema.pbtxt').is_file())\n"
        f"print({entrypoint.__name__}.__file__)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["True", str(site / "pipeline" / "kubeflow" / "pods" / "entrypoint.py")]
