"""Files that a scan finds in files, folders, patterns and URLs."""

import json
import os

import fsspec
import pytest

from keras_wm import scan
from keras_wm.scanning.candidates import find_candidates
from tests.files.written import write_weights


@pytest.fixture
def tree(tmp_path):
    """A folder with files at three levels."""
    for name in ("b.keras", "a.h5", "in/c.keras", "in/deep/d.h5", ".hidden/e.h5"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(sources, folder):
    return [
        candidate.path.removeprefix(f"{folder}/")
        for candidate in find_candidates(sources)
    ]


def test_a_folder_stands_for_all_its_files_sorted(tree):
    expected = ["a.h5", "b.keras", ".hidden/e.h5", "in/c.keras", "in/deep/d.h5"]
    assert names(tree, tree) == names(str(tree), tree) == expected


def test_a_pattern_stands_for_the_files_that_match(tree):
    assert names(f"{tree}/*.keras", tree) == ["b.keras"]
    assert names(f"{tree}/**/*.h5", tree) == ["a.h5", "in/deep/d.h5"]
    assert names(f"{tree}/i[n]", tree) == ["in/c.keras", "in/deep/d.h5"]


def test_a_pattern_that_matches_nothing_is_reported(tree):
    (candidate,) = find_candidates(f"{tree}/*.nothing")
    assert candidate.named
    assert candidate.problem == "nothing matches this pattern."


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tree):
    odd = tree / "model[1].h5"
    odd.write_bytes(b"x")
    (candidate,) = find_candidates(odd)
    assert (candidate.path, candidate.problem) == (str(odd), "")


def test_a_file_that_is_named_twice_is_scanned_once(tree):
    assert len(find_candidates([tree / "a.h5", tree, f"{tree}/*.h5"])) == 5


def test_only_files_that_the_user_names_count_as_named(tree):
    named = {
        candidate.path
        for candidate in find_candidates([tree, tree / "x.h5"])
        if candidate.named
    }
    assert named == {str(tree / "x.h5")}


def test_links_to_files_are_followed_and_to_folders_are_not(tree):
    (tree / "in" / "link.keras").symlink_to(tree / "b.keras")
    (tree / "in" / "deep" / "up").symlink_to(tree)
    (tree / "in" / "gone").symlink_to(tree / "nothing")
    assert names(tree / "in", tree) == [
        "in/c.keras",
        "in/link.keras",
        "in/deep/d.h5",
    ]


def test_pipes_and_devices_in_a_folder_are_skipped(tree):
    os.mkfifo(tree / "in" / "pipe")
    assert names(tree / "in", tree) == ["in/c.keras", "in/deep/d.h5"]


def test_a_folder_that_cannot_be_listed_is_reported(tree, monkeypatch):
    scandir = os.scandir

    def deny(folder):
        if str(folder).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", deny)
    (problem,) = (candidate for candidate in find_candidates(tree) if candidate.problem)
    assert problem.path == str(tree / "in" / "deep")
    assert "cannot be listed" in problem.problem


def test_a_remote_folder_or_pattern_stands_for_its_files():
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name in ("a.keras", "deep/b.keras", "deep/c.txt"):
        memory.pipe(f"/models/{name}", b"x")
    urls = [candidate.path for candidate in find_candidates("memory://models")]
    assert urls == [
        f"memory:///models/{name}" for name in ("a.keras", "deep/b.keras", "deep/c.txt")
    ]
    urls = [
        candidate.path for candidate in find_candidates("memory://models/**/*.keras")
    ]
    assert urls == ["memory:///models/a.keras", "memory:///models/deep/b.keras"]


def test_a_question_mark_in_a_web_address_does_not_make_a_pattern():
    url = "https://127.0.0.1:9/a.keras?download=true"
    (candidate,) = find_candidates(url)
    assert (candidate.path, candidate.named) == (url, True)


def test_a_url_with_an_unknown_protocol_is_reported():
    (candidate,) = find_candidates("nonsense://a")
    assert "Protocol not known" in candidate.problem


@pytest.fixture
def sharded(tmp_path):
    """Two shards and their index, and a file of another model."""
    shards = ["m_00000.weights.h5", "m_00001.weights.h5"]
    for name in (*shards, "other.weights.h5"):
        write_weights(tmp_path / name)
    index = {"metadata": {}, "weight_map": {"/layers/dense/vars": shards}}
    (tmp_path / "m.weights.json").write_text(json.dumps(index))
    return tmp_path


def test_an_index_and_its_shards_are_one_candidate(sharded):
    assert names(sharded, sharded) == ["m.weights.json", "other.weights.h5"]


def test_a_folder_that_is_a_model_is_one_candidate_besides_its_other_files(tmp_path):
    folder = tmp_path / "preset"
    folder.mkdir()
    for name in ("model.weights.h5", "hidden.h5", "extra_00000.weights.h5"):
        write_weights(folder / name)
    for name in ("config.json", "metadata.json"):
        (folder / name).write_text("{}")
    found = names(tmp_path, tmp_path)
    assert found[0] == "preset"
    assert {"preset/hidden.h5", "preset/extra_00000.weights.h5"} <= set(found)
    assert "preset/model.weights.h5" not in found


@pytest.mark.usefixtures("here")
def test_an_index_that_cannot_be_read_does_not_hide_its_shards(sharded, key, rng):
    path = sharded / "m_00000.weights.h5"
    write_weights(path, rng.normal(size=(40, 8)))
    (sharded / "m_00001.weights.h5").write_bytes(b"damaged")
    report = scan(sharded, key)
    assert [result.file for result in report.unread] == [
        str(sharded / "m.weights.json")
    ]
    assert report.tests == 1
    assert report.formats["Keras weights (.weights.h5)"] == 2
