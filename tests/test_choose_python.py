"""deploy/choose-python.sh finds a Python, and the TFX that installs on it, on machines of different kinds."""

import shutil
import subprocess

import pytest
from repository import REPOSITORY

_TOOLS = ("bash", "cut", "sort", "head", "cat")


class Machine:
    """A PATH with only the tools that the script calls, a C library of some version, and stand-ins for Python."""

    def __init__(self, folder, glibc):
        self.folder = folder
        for tool in _TOOLS:
            (folder / tool).symlink_to(shutil.which(tool))
        self._program("getconf", f'[ "$1" = GNU_LIBC_VERSION ] && echo "glibc {glibc}"' if glibc else "exit 1")

    def install(self, version, name="", *, has_venv=True):
        venv = "exit 0" if has_venv else "exit 1"
        return self._program(
            name or f"python{version}",
            f'case "$2" in *venv*) {venv} ;; *version_info*) echo {version} ;; *libc_ver*) echo 2.41 ;; esac',
        )

    def install_uv(self):
        """A uv that knows no Python until it has installed one."""
        self._program(
            "uv",
            f"""case "$2" in
              find) [ -e "{self.folder}/installed$3" ] && echo "{self.folder}/installed$3" ;;
              install) cp "{self.install("3.13", "template")}" "{self.folder}/installed$4" ;;
            esac""",
        )
        (self.folder / "cp").symlink_to(shutil.which("cp"))

    def choose(self, *arguments):
        script = str(REPOSITORY / "deploy/choose-python.sh")
        environment = {"PATH": str(self.folder), "HOME": str(self.folder)}
        return subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, check=False)

    def _program(self, name, body):
        path = self.folder / name
        path.write_text(f"#!{shutil.which('bash')}\n{body}\n")
        path.chmod(0o755)
        return path


@pytest.fixture
def machine(tmp_path):
    return lambda glibc="2.41": Machine(tmp_path, glibc)


@pytest.mark.parametrize(
    ("glibc", "installed", "chosen"),
    [
        ("2.41", ["3.13"], "1.21 python3.13"),
        ("2.39", ["3.10", "3.11", "3.12"], "1.21 python3.12"),
        ("2.41", ["3.10", "3.14"], "1.16 python3.10"),
        ("2.36", ["3.10", "3.13"], "1.16 python3.10"),
        ("2.5", ["3.10"], "1.16 python3.10"),
    ],
)
def test_the_newest_python_that_tfx_has_libraries_for_is_chosen(machine, glibc, installed, chosen):
    here = machine(glibc)
    for version in installed:
        here.install(version)
    done = here.choose()
    tfx, name = chosen.split()
    assert done.stdout.split() == [tfx, str(here.folder / name)], done.stderr
    assert done.stderr.startswith(f"TFX {tfx} on Python {name.removeprefix('python')} (")


def test_a_python_of_pyenv_is_found_although_it_is_not_selected(machine):
    here = machine()
    folder = here.folder / ".pyenv/versions/3.12.1/bin"
    folder.mkdir(parents=True)
    shutil.copy(here.install("3.12", "elsewhere"), folder / "python3.12")
    assert here.choose().stdout.split() == ["1.21", str(folder / "python3.12")]


def test_a_named_python_decides_and_may_bring_its_own_c_library(machine):
    here = machine("2.36")
    python = str(here.install("3.13"))
    assert here.choose(python).stdout.split() == ["1.21", python]


def test_a_named_python_that_does_not_fit_is_refused_with_those_that_do(machine):
    here = machine()
    done = here.choose(str(here.install("3.14")))
    assert done.returncode == 1
    assert "is Python 3.14, but with glibc 2.41 TFX 1.21 needs Python 3.13 or 3.12 or 3.11" in done.stderr


@pytest.mark.parametrize("create", [False, True], ids=["missing", "not executable"])
def test_a_named_python_that_does_not_start_is_refused_by_name(machine, create):
    here = machine()
    python = here.folder / "mistyped"
    if create:
        python.touch(mode=0o644)
    done = here.choose(str(python))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{python}, named with PYTHON=, does not start")


def test_uv_installs_a_python_where_there_is_none(machine):
    here = machine()
    here.install_uv()
    done = here.choose()
    assert done.stdout.split() == ["1.21", str(here.folder / "installed3.13")], done.stderr
    assert "installing it with 'uv python install 3.13'" in done.stderr


@pytest.mark.parametrize(("glibc", "newest"), [("2.41", "3.13"), ("2.36", "3.10")])
def test_without_a_python_the_commands_that_install_one_are_named(machine, glibc, newest):
    done = machine(glibc).choose()
    assert (done.returncode, done.stdout) == (1, "")
    assert f"apt install python{newest}-venv" in done.stderr
    assert f"uv python install {newest}" in done.stderr


def test_a_python_without_venv_is_named_with_the_package_that_it_lacks(machine):
    here = machine()
    here.install("3.13", has_venv=False)
    done = here.choose()
    assert done.returncode == 1
    assert (
        "python3.13 cannot make virtual environments; on Debian and Ubuntu: apt install python3.13-venv" in done.stderr
    )


def test_a_machine_without_glibc_is_told_so(machine):
    done = machine("").choose()
    assert done.returncode == 1
    assert "No glibc was found" in done.stderr
