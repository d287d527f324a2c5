"""Writes the model files of old Keras versions that the tests read.

    python write_old_files.py --into tests/files/data

makes a virtual environment for every version in a temporary folder (about 2 GB at a
time, Python 3.11, packages from the default index) and runs `old_model.py` in it.
"""

import argparse
import os
import subprocess
import tempfile
import venv
from pathlib import Path

WRITERS = {
    "keras_2_12": ["tensorflow-cpu==2.12.1"],
    "keras_2_15": ["tensorflow-cpu==2.15.1"],
    "tf_keras_2_21": ["tensorflow-cpu==2.21.0", "tf_keras==2.21.0"],
    "keras_3_0": ["tensorflow-cpu==2.16.2", "keras==3.0.5"],
    "keras_3_3": ["tensorflow-cpu==2.16.2", "keras==3.3.3"],
    "keras_3_15": ["tensorflow-cpu==2.21.0", "keras==3.15.1"],
}
MODEL = Path(__file__).with_name("old_model.py").resolve()


def write(name, environments, into):
    """Writes the files of one version, whose names start with `name`."""
    with tempfile.TemporaryDirectory(dir=environments) as environment:
        venv.create(environment, with_pip=True)
        python = Path(environment) / "bin" / "python"
        install = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
        subprocess.run([*install, *WRITERS[name]], check=True)
        package = name.rstrip("_0123456789")
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run([python, MODEL, package, name], cwd=into, env=quiet, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(WRITERS), metavar="NAME")
    parser.add_argument("--into", type=Path, required=True, help="where the files go")
    parser.add_argument("--environments", type=Path, help="where to make environments")
    options = parser.parse_args()
    for name in options.names:
        write(name, options.environments, options.into)
        print(name)


if __name__ == "__main__":
    main()
