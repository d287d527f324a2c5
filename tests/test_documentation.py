"""The programs in docs/own_training_loops.md: each of them embeds a complete mark."""

import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

pytestmark = [pytest.mark.study, pytest.mark.backends]

PAGE = Path(__file__).parents[1] / "docs" / "own_training_loops.md"
PROGRAMS = re.findall(r"^```python (\w+)\n(.*?)^```$", PAGE.read_text(), re.S | re.M)


def test_the_page_has_the_four_loops_of_keras():
    assert [backend for backend, _ in PROGRAMS] == [
        "tensorflow",
        "tensorflow",
        "jax",
        "torch",
    ]


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_loop_embeds_the_mark(number):
    backend, program = PROGRAMS[number]
    if backend != keras.backend.backend():
        pytest.skip(f"a program for {backend}")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "UserWarning" not in done.stderr
    assert float(done.stdout.split()[-1]) == 0
