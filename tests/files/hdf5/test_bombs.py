"""What a small file may ask for is bounded, with the limits that nobody has set."""

import json
import subprocess
import sys

import pytest

from tests.files.bombs import BOMBS

BOUND = 500 * 2**20
REFUSALS = {
    "thousands_of_attributes": "1 kernels",
    "kernels_by_the_thousand": "19000 kernels",
    "ten_thousand_layers": "10000 kernels",
    "groups_in_groups": "nested deeper than Limits.depth=64",
    "long_text": "more than Limits.listing_bytes=134,217,728 bytes are read",
    "long_fixed_text": "more than Limits.listing_bytes=134,217,728 bytes are read",
    "chunk_of_more_than_it_holds": "has a chunk of 4,000,000 bytes that unpacks to",
    "chunk_of_a_gigabyte": "more than Limits.chunks=100,000 or Limits.chunk_bytes=16",
    "array_of_two_gigabytes": "more than Limits.unpacked_bytes=268,435,456",
    "zip_of_eight_gigabytes": "has 4,194,304,000 bytes, more than the 1,073,741,824",
    "zip_in_a_zip": "not a Keras model file: it is a zip archive",
    "zip_of_many_members": "50,000 members, more than Limits.archive_members=10,000",
    "deflated_config_of_half_a_gigabyte": "bytes, more than the 10,485,760 allowed",
    "config_nested_without_end": "1 kernels",
    "config_of_many_objects": "1 kernels",
}
# The bound is on what is added to the modules, which a good file makes h5py load.
READ_ALL = """
import json, resource, sys
from keras_wm.errors import ModelFileError
from keras_wm.files import open_model_file

def outcome(path):
    try:
        with open_model_file(path) as model_file:
            for kernel in model_file.kernels[:10]:
                kernel.read()
            return f"{len(model_file.kernels)} kernels"
    except ModelFileError as error:
        return f"{error} {error.__cause__!r}"

paths = json.loads(sys.argv[1])
outcome(paths[0])
with open("/proc/self/statm") as sizes:
    used = int(sizes.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
print(json.dumps([outcome(path) for path in paths]))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What comes of each file in a process that cannot have more memory."""
    folder = tmp_path_factory.mktemp("bombs")
    for name in REFUSALS:
        BOMBS[name](folder / name)
    paths = json.dumps([str(folder / name) for name in REFUSALS])
    run = subprocess.run(
        [sys.executable, "-c", READ_ALL, paths, str(BOUND)],
        capture_output=True,
        text=True,
    )
    for name in REFUSALS:
        (folder / name).unlink()
    assert run.returncode == 0, run.stderr
    return dict(zip(REFUSALS, json.loads(run.stdout), strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")
@pytest.mark.parametrize("name", REFUSALS)
def test_a_bomb_is_read_or_refused_within_500_megabytes(outcomes, name):
    assert REFUSALS[name] in outcomes[name]
    assert "MemoryError" not in outcomes[name]
