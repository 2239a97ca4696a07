"""Executes the Dockerfile's steps without a container engine, and runs the whole pipeline in the result.

On Debian 13 with Python 3.13, these are the steps for TFX 1.21; on Debian 12 with Python 3.10, those for TFX 1.16. This
machine's /usr with its Python in /usr/local replaces `python:3.13-trixie`; the files of Debian's required packages and
the same Python replace `python:3.13-slim-trixie`. Layers are overlay mounts. The contents of the official images are
not tested, and uv takes packages from its cache if it has them.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dockerfile import TFX_116
from dockerfile import stages as stages_of
from repository import REPOSITORY

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
BUILDS = {("12", "3.10"): TFX_116, ("13", "3.13"): {}}
"""Arguments of the build by Debian's release and the Python; the Dockerfile's own defaults are TFX 1.21's."""
PASSED_ON = re.compile(r"^(PIP_|UV_|SSL_|REQUESTS_)|_proxy$", re.IGNORECASE)
BESIDES_REQUIRED = ("ca-certificates", "netbase", "tzdata")
ETC = ["alternatives", "ssl", "ca-certificates", "ld.so.conf", "ld.so.conf.d", "nsswitch.conf", "passwd", "group"]
ETC += ["hosts", "resolv.conf", "pip.conf"]
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
VARIABLE = re.compile(r"(\w+)=(\S+)")


@dataclass
class Stage:
    """A build stage: its read-only layers (highest first), its writable layer, and the settings of its processes."""

    layers: list[Path]
    upper: Path
    binds: dict[str, str]
    """Folders of this machine by their path in the stage."""
    variables: dict[str, str] = field(default_factory=lambda: {"PATH": BASE_PATH})
    workdir: str = "/"
    user: str = "0:0"

    def run(self, command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = [f"{name}={value}" for name, value in {**self.variables, **variables}.items()]
        start = [
            "chroot",
            f"--userspec={self.user}",
            "@",
            "/usr/bin/env",
            "-i",
            f"--chdir={self.workdir}",
            *environment,
        ]
        return self.mounted(shlex.join([*start, "/bin/sh", "-ec", command]).replace("@", '"$merged"', 1))

    def mounted(self, script: str) -> "subprocess.CompletedProcess[str]":
        """Run a script with the stage's file system in $merged; fails with the script's output."""
        for name in ("work", "merged"):
            (self.upper.parent / name).mkdir(exist_ok=True)
        layers = ":".join(map(str, self.layers))
        binds = "\n".join(
            f'mkdir -p "$merged{seen}"; mount --bind {real} "$merged{seen}"' for seen, real in self.binds.items()
        )
        mounts = f"""
            merged={self.upper.parent}/merged
            options=lowerdir={layers},upperdir={self.upper},workdir={self.upper.parent}/work
            mount -t overlay overlay -o "$options" "$merged"
            mkdir -p "$merged/dev" "$merged/proc"
            {binds}
            mount --rbind /dev "$merged/dev"
            mount -t proc proc "$merged/proc"
        """
        result = subprocess.run(
            ["unshare", "--mount", "/bin/sh", "-ec", mounts + script], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{script}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        return result


def _python(layer: Path) -> None:
    """This Python in /usr/local, with pip as its only package, as in the official image."""
    prefix = Path(sys.base_prefix)
    packages = shutil.ignore_patterns("__pycache__", "test", "site-packages")
    shutil.copytree(prefix / "lib", layer / "usr/local/lib", symlinks=True, ignore=packages)
    for package in (prefix / f"lib/python{PYTHON}/site-packages").glob("pip*"):
        shutil.copytree(package, layer / f"usr/local/lib/python{PYTHON}/site-packages" / package.name)
    binary = layer / f"usr/local/bin/python{PYTHON}"
    binary.parent.mkdir(parents=True)
    shutil.copy(prefix / f"bin/python{PYTHON}", binary)
    for name in ("python", "python3"):
        binary.with_name(name).symlink_to(binary.name)
    binary.with_name("pip").write_text("#!/usr/local/bin/python\nfrom pip._internal.cli.main import main\nmain()\n")
    binary.with_name("pip").chmod(0o755)


def _full(layer: Path) -> None:
    """The small parts of this machine's file system; its /usr is mounted later."""
    (layer / "etc").mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (layer / name).symlink_to(f"usr/{name}")
    paths = [path for name in ETC if (path := Path("/etc", name)).exists()]
    subprocess.run(["cp", "-a", "--parents", *paths, layer], check=True)
    (layer / "tmp").mkdir(mode=0o1777)


def _slim(layer: Path) -> None:
    """Debian's required packages, their dependencies, and the libraries that Python links to."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (layer / "usr" / name).mkdir(parents=True)
        (layer / name).symlink_to(f"usr/{name}")
    script = f"""
        required=$(dpkg-query -W -f '${{Package}} ${{Priority}}\\n' | awk '$2 == "required" {{print $1}}')
        linked=$(find {sys.base_prefix}/lib/python{PYTHON}/lib-dynload -name '*.so' ! -name '_tkinter*' \
            -exec ldd {{}} + | awk '$2 == "=>" && $3 ~ "^/" {{print $3}}' | sort -u | xargs -n1 readlink -f |
            xargs dpkg-query --search 2>/dev/null | cut -d: -f1 | sort -u)
        apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
            --no-enhances $required $linked {" ".join(BESIDES_REQUIRED)} |
            grep -E '^[a-z0-9]' | sed 's/:.*//' | sort -u |
            while read -r package; do dpkg -L "$package" 2>/dev/null || true; done | sort -u |
            while read -r path; do if [ -e "$path" ]; then echo "$path"; fi; done > {layer}.files
        tar -C / --no-recursion -cf - -T {layer}.files 2>/dev/null | tar -C {layer} --keep-directory-symlink -xf -
        mkdir -p {layer}/tmp && chmod 1777 {layer}/tmp
        echo '127.0.0.1 localhost' > {layer}/etc/hosts  # as every engine does
    """
    subprocess.run(["/bin/bash", "-ec", script], check=True)


def _copy(stage: Stage, arguments: str, built: dict[str, Stage]) -> None:
    *sources, destination = re.sub(r"--from=\S+ ", "", arguments).split()
    target = stage.upper / str(Path(stage.workdir, destination)).lstrip("/")
    of = re.match(r"--from=(\S+)", arguments)
    if of:
        target.parent.mkdir(parents=True, exist_ok=True)
        built[of[1]].mounted(shlex.join(["cp", "-a", "@", str(target)]).replace("@", f'"$merged"{sources[0]}', 1))
        return
    for source in sources:
        if (REPOSITORY / source).is_dir():
            shutil.copytree(REPOSITORY / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / source, target)


def _build(target: str, folder: Path, arguments_of_build: dict[str, str]) -> Stage:
    """Build the stage `target` and the stages that it depends on."""
    stages = stages_of(**arguments_of_build)
    python, full, slim = folder / "python", folder / "full", folder / "slim"
    _python(python)
    _full(full)
    _slim(slim)
    passed_on = {name: value for name, value in os.environ.items() if PASSED_ON.search(name)}
    cache = subprocess.run(["uv", "cache", "dir"], env=_with_uv(), capture_output=True, text=True, check=True)
    cache_folder = cache.stdout.strip()
    usr = {"/usr": "/usr", "/usr/local": f"{python}/usr/local", cache_folder: cache_folder}
    bases = {"full": ([full], usr), "slim": ([python, slim], {})}
    built: dict[str, Stage] = {}
    needed = _needed(target, stages)
    for name, steps in stages.items():
        if name not in needed:
            continue
        base = steps[0][1].split(" AS ")[0]
        upper = folder / name / "upper"
        upper.mkdir(parents=True)
        if base in built:
            below = built[base]
            layers = [below.upper, *below.layers]
            stage = Stage(layers, upper, below.binds, dict(below.variables), below.workdir, below.user)
        else:
            assert base.startswith(f"python:{PYTHON}-")
            layers, binds = bases["slim" if "-slim-" in base else "full"]
            stage = Stage(layers, upper, binds)
            stage.run("ldconfig")
        built[name] = stage
        for instruction, arguments in steps[1:]:
            if instruction == "RUN":
                command = re.sub(r"(uv pip \w+) --no-cache", r"\1", arguments)
                stage.run(command, **passed_on, UV_CACHE_DIR=cache_folder)
            elif instruction == "COPY":
                _copy(stage, arguments, built)
            elif instruction == "ENV":
                for variable, value in VARIABLE.findall(arguments):
                    stage.variables[variable] = value.replace("$PATH", stage.variables["PATH"])
            elif instruction == "WORKDIR":
                stage.workdir = arguments
                if arguments != "/tmp":
                    (upper / arguments.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif instruction == "USER":
                stage.user = arguments
            else:
                assert instruction in ("ENTRYPOINT", "CMD"), f"unsupported instruction {instruction}"
    return built[target]


def _with_uv() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def _needed(target: str, stages: dict[str, list[tuple[str, str]]]) -> set[str]:
    steps = stages[target]
    below = [steps[0][1].split(" AS ")[0], *(found[1] for _, a in steps if (found := re.match(r"--from=(\S+)", a)))]
    return {target}.union(*(_needed(stage, stages) for stage in below if stage in stages))


def _debian() -> str:
    """The number of the Debian release that this machine runs; empty on other systems."""
    found = re.search(r"Debian GNU/Linux (\d+)", Path("/etc/os-release").read_text(encoding="utf-8"))
    return found[1] if found else ""


@pytest.mark.image
def test_the_pipeline_runs_as_an_unprivileged_user_in_the_built_image(tmp_path: Path) -> None:
    arguments = BUILDS.get((_debian(), PYTHON))
    if os.geteuid() != 0 or arguments is None or sys.base_prefix == "/usr":
        pytest.skip(
            "needs root for overlay mounts and chroot, and the image's base: Debian 13 with Python 3.13, or 12 with "
            "3.10; not Debian's own Python, which looks for packages elsewhere than the image's"
        )
    from pipeline.kubeflow.pods import data_version, entrypoint, trainer  # after the skip: these load TensorFlow
    from trainer import worker

    image = _build("cpu", tmp_path, arguments)
    assert "schedule" in image.run("autoencoder --help").stdout
    assert image.run("id -u").stdout.strip() == "65532"
    assert image.run("command -v uv gcc || echo neither").stdout.strip() == "neither"
    modules = ", ".join(module.__name__ for module in (data_version, entrypoint, trainer, worker))
    image.run(f"python -c 'import {modules}'")
    shutil.copy(REPOSITORY / "configs" / "digits.yaml", image.upper / "digits.yaml")
    image.run("autoencoder run /digits.yaml --set root=/tmp/runs --set trainer.epochs=30")
    assert image.run("ls /tmp/runs/digits/serving/*/saved_model.pb").stdout
    print(image.run("du -sh /opt/venv").stdout)
