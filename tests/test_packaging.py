"""The wheel and the editable install, outside the source tree."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Builds and type checks take a minute.
pytestmark = pytest.mark.study


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the project to build from, because setuptools writes into it."""
    folder = tmp_path_factory.mktemp("source") / "project"
    folder.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "keras_wm", folder / "keras_wm", ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--outdir", folder, source])
    (built,) = folder.glob("*.whl")
    return built


def run(command, **options):
    """Runs a command; a failure shows what it printed."""
    finished = subprocess.run(
        command, check=False, capture_output=True, text=True, **options
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def environment_with(folder, *install):
    """A virtual environment with the project, and this one's other packages."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    base = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", base))
    # Found after the environment's own packages.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run([*pip, "--no-deps", "--ignore-installed", *install])
    return python


@pytest.fixture(scope="module")
def wheel_python(wheel, tmp_path_factory):
    """The interpreter of an environment in which the wheel is installed."""
    return environment_with(tmp_path_factory.mktemp("env") / "wheel", wheel)


@pytest.fixture(scope="module")
def editable_python(source, tmp_path_factory):
    """The interpreter of an environment with an editable install."""
    return environment_with(tmp_path_factory.mktemp("env") / "editable", "-e", source)


def test_the_wheel_holds_every_module_and_the_type_marker(wheel):
    modules = {
        str(path.relative_to(ROOT)) for path in (ROOT / "keras_wm").rglob("*.py")
    }
    with zipfile.ZipFile(wheel) as archive:
        members = set(archive.namelist())
    data = {"keras_wm/py.typed", "keras_wm/research/evaluation/page.html"}
    assert modules | data <= members
    assert not any(
        name.startswith(("tests", "benchmarks", "examples")) for name in members
    )


def test_the_wheel_names_its_licence_its_extras_and_its_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {
            Path(name).name: archive.read(name).decode()
            for name in archive.namelist()
            if ".dist-info/" in name
        }
    assert "License: Apache-2.0" in texts["METADATA"]
    for extra in ("demo", "encrypt", "jax", "remote", "test", "torch"):
        assert f"Provides-Extra: {extra}" in texts["METADATA"]
    assert "keras-wm = keras_wm.cli:main" in texts["entry_points.txt"]
    assert "Apache License" in texts["LICENSE"]


def test_the_wheel_works_outside_the_source_tree(wheel_python, tmp_path):
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    }
    home = str(wheel_python.parents[1])
    for arguments in (
        ["-c", f"import keras_wm; assert {home!r} in keras_wm.__file__"],
        ["-m", "keras_wm", "keygen", "owner.key", "--owner", "Example Ltd"],
    ):
        run([wheel_python, *arguments], cwd=tmp_path, env=environment)


@pytest.mark.parametrize("installed", ["wheel_python", "editable_python"])
def test_a_users_script_passes_strict_type_checks(installed, request, tmp_path):
    python = request.getfixturevalue(installed)
    script = shutil.copy(ROOT / "tests" / "user_script.py", tmp_path)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python]
    run([*mypy, "--cache-dir", tmp_path / "cache", script], cwd=tmp_path)
