"""The flat, lazy namespace."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import keras_wm
import keras_wm.claims
import keras_wm.files
import keras_wm.research

PACKAGES = [keras_wm, keras_wm.claims, keras_wm.files, keras_wm.research]


def run(program):
    """Runs a program in a fresh process; returns its exit status."""
    return subprocess.run([sys.executable, "-c", program], check=False).returncode


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, keras_wm\n"
        "for name in ('keras', 'tensorflow', 'numpy', 'h5py', 'scipy', 'typer'):\n"
        "    assert name not in sys.modules, name\n"
    )
    assert run(program) == 0


def test_every_public_name_is_there_and_documented():
    for name in keras_wm.__all__:
        value = getattr(keras_wm, name)
        assert name == "__version__" or inspect.getdoc(value), name


@pytest.mark.parametrize("package", PACKAGES)
def test_a_namespace_lists_public_names_only(package):
    assert dir(package) == sorted(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_every_public_name(package):
    tree = ast.parse(Path(package.__file__).read_text("utf-8"))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    assert set(names) <= imported


def test_documented_sub_packages_are_attributes_without_an_import_of_their_own():
    program = (
        "import sys, keras_wm\n"
        "keras_wm.research.attacks, keras_wm.slmc, keras_wm.files.Limits\n"
        "assert keras_wm.research.attacks is sys.modules['keras_wm.research.attacks']\n"
    )
    assert run(program) == 0


def test_no_module_hides_a_public_function():
    # Importing a sub-module sets an attribute of its package.
    import keras_wm.cli

    for name in keras_wm.__all__:
        is_package = name in ("claims", "files", "plots", "research", "slmc")
        assert inspect.ismodule(getattr(keras_wm, name)) == is_package, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        keras_wm.nothing  # noqa: B018
