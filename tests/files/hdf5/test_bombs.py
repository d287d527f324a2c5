"""The default limits bound the memory that a small file can use."""

import sys

import pytest

from tests.files.bombs import BOMBS, read_in_a_process

BOUND = 500 * 2**20
OUTCOMES = {
    "thousands_of_attributes": "1 kernels",
    "groups_in_groups": "nested deeper than Limits.depth=64",
    "long_text": "more than Limits.listing_bytes=134,217,728 bytes are read",
    "long_fixed_text": "more than Limits.listing_bytes=134,217,728 bytes are read",
    "chunk_of_more_than_it_holds": "has a chunk of 4,000,000 bytes that unpacks to",
    "chunk_of_a_gigabyte": "more than Limits.chunk_bytes=16",
    "array_of_two_gigabytes": "more than Limits.unpacked_bytes=268,435,456",
    "zip_of_eight_gigabytes": "has 4,194,304,000 bytes, more than the 1,073,741,824",
    "zip_in_a_zip": "not a Keras model file: it is a zip archive",
    "zip_of_many_members": "50,000 members, more than Limits.archive_members=10,000",
    "deflated_config_of_half_a_gigabyte": "bytes, more than the 10,485,760 allowed",
    "config_nested_without_end": "1 kernels",
    "config_of_many_objects": "1 kernels",
}
# It takes seconds to list these.
LONG_OUTCOMES = {
    "kernels_by_the_thousand": "19000 kernels",
    "ten_thousand_layers": "10000 kernels",
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")


def assert_bounded(folder, outcomes):
    """Reads bombs in one process whose memory is limited, and compares the outcomes."""
    for name in outcomes:
        BOMBS[name](folder / name)
    results = read_in_a_process([folder / name for name in outcomes], BOUND)
    for name in outcomes:
        (folder / name).unlink()
    for (name, outcome), result in zip(outcomes.items(), results, strict=True):
        assert outcome in result["outcome"], name
        assert "MemoryError" not in result["outcome"], name


def test_every_bomb_is_read_or_refused_within_500_megabytes(tmp_path):
    assert_bounded(tmp_path, OUTCOMES)


@pytest.mark.study
def test_thousands_of_kernels_are_listed_within_500_megabytes(tmp_path):
    assert_bounded(tmp_path, LONG_OUTCOMES)
