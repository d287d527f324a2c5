"""A short run of the fuzzer, and tests of its parts.

`python -m tests.files.fuzz` is the long run.
"""

import sys
from random import Random

import pytest

from tests.files.fuzz import FOREIGN, Case, Fuzzing, Reader, corpus, make_case, read
from tests.files.mutations import BLIND, mutate_json, mutate_members
from tests.files.written import write_archive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return list(corpus(tmp_path_factory.mktemp("corpus")))


def test_mutated_files_are_read_or_refused(samples, tmp_path):
    run = Fuzzing(samples, tmp_path, seed=3, cases=60, patience=None)
    outcomes = run.run(readers=1)
    assert sum(outcomes.values()) == 60
    assert outcomes["read"] > 5
    assert {outcome.partition(":")[0] for outcome in outcomes} == {"read", "refused"}


def test_every_sample_is_a_good_model(samples, tmp_path):
    for name, files in samples:
        Case(name, files).write(tmp_path / "case")
        assert read(tmp_path / "case") == "read", name


def test_the_seed_and_the_number_determine_the_case(samples):
    case = make_case(samples, 1, 5)
    assert case == make_case(samples, 1, 5) != make_case(samples, 1, 6)


def test_every_mutation_takes_any_bytes():
    for change in set(BLIND):
        for data in (b"", b"a", bytes(100)):
            for seed in range(20):
                assert isinstance(change(Random(seed), data, b"other"), bytes)


def test_members_and_json_are_changed(archive):
    data = archive.read_bytes()
    changed = {mutate_members(Random(seed), data, b"x") for seed in range(40)}
    assert len(changed) > 10
    config = b'{"a": [1, 2, {"b": "c"}]}'
    assert len({mutate_json(Random(seed), config) for seed in range(40)}) > 10


def test_an_unexpected_exception_is_reported(tmp_path):
    reader = Reader(write_archive(tmp_path / "good"), seconds=None)
    try:
        assert reader.read(5).startswith(f"{FOREIGN}: TypeError")
    finally:
        reader.close()


def test_a_child_that_takes_too_long_is_replaced(tmp_path):
    good = write_archive(tmp_path / "good")
    reader = Reader(good, seconds=0)
    try:
        assert {reader.read(good) for _ in range(2)} == {"ended after 0 s"}
    finally:
        reader.close()
