"""The flat, lazy namespace."""

import subprocess
import sys

import pytest

import keras_wm


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, keras_wm\n"
        "for name in ('keras', 'tensorflow', 'numpy', 'h5py', 'scipy', 'typer'):\n"
        "    assert name not in sys.modules, name\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], check=False)
    assert finished.returncode == 0


@pytest.mark.parametrize("name", keras_wm.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(keras_wm, name)
    assert name in dir(keras_wm)
    assert name == "__version__" or value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        keras_wm.nothing  # noqa: B018
