"""The wheel, outside the source tree."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel. Built from a copy: setuptools writes into its source."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "keras_wm", source / "keras_wm", ignore=ignored)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, source],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_the_type_marker(wheel):
    modules = {
        str(path.relative_to(ROOT)) for path in (ROOT / "keras_wm").rglob("*.py")
    }
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert modules | {"keras_wm/py.typed"} <= held
    assert not any(name.startswith(("tests", "benchmarks")) for name in held)


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


def test_the_wheel_works_outside_the_source_tree(wheel, tmp_path):
    target = tmp_path / "installed"
    install = ["pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", *install, "--target", target, wheel], check=True
    )
    environment = os.environ | {"PYTHONPATH": str(target)}
    for arguments in (
        ["-c", f"import keras_wm; assert {str(target)!r} in keras_wm.__file__"],
        ["-m", "keras_wm", "keygen", "owner.key", "--owner", "Example Ltd"],
    ):
        finished = subprocess.run(
            [sys.executable, *arguments], check=False, cwd=tmp_path, env=environment
        )
        assert finished.returncode == 0
