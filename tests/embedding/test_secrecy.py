"""No file that a marked model can write contains the secret or parts of the key."""

import zipfile

import keras
import pytest

from keras_wm import BitErrorRate, publish
from tests.conftest import FIXED_SECRET, fixed_key
from tests.models import FEATURES, UNITS, dense_model, fit, kernel_of, mark

pytestmark = pytest.mark.backends

OWNER = "Nobody else is called that GmbH"


def traces_of_the_matrix(key):
    """Yields X as it might be stored: rows or columns, either sign and precision."""
    arrays = key.for_shape((FEATURES, UNITS))
    x = arrays.matrix
    signs = 2.0 * arrays.message[:, None] - 1.0
    for matrix in (x, -x, signs * x, -signs * x):
        for dtype in ("float32", "float64"):
            stored = matrix.astype(dtype)
            for lines in (stored, stored.T):
                for line in lines:
                    yield line[:3].tobytes()
    for value in x[:3, :3].ravel():
        yield repr(abs(float(value)))[:9].encode()


def traces_of_the_weights(key):
    """Yields the filter weights as they might be stored, rows or columns."""
    weights = key.for_shape((FEATURES, UNITS)).filter_weights
    for dtype in ("int8", "float32", "float64"):
        for lines in (weights, -weights, weights.T, -weights.T):
            for line in lines.astype(dtype):
                yield line[:16].tobytes()


def assert_no_secret_in(content, key):
    assert FIXED_SECRET not in content
    assert FIXED_SECRET.hex().encode() not in content.lower()
    assert key.owner.encode() not in content
    assert key.owner.encode("utf-16-le") not in content


@pytest.fixture(scope="module")
def owners_key():
    """The key of a model that writes every kind of file that a model can write."""
    return fixed_key(owner=OWNER)


@pytest.fixture(scope="module")
def written(owners_key, tmp_path_factory):
    """The model, and the contents of all those files, with archives unpacked."""
    folder = tmp_path_factory.mktemp("written")
    model = dense_model(mark(owners_key, regularizer="l2"))
    checkpoint = keras.callbacks.ModelCheckpoint
    fit(
        model,
        2,
        [
            BitErrorRate(log_dir=folder / "marks"),
            keras.callbacks.TensorBoard(
                folder / "logs", histogram_freq=1, write_graph=True, write_images=True
            ),
            keras.callbacks.CSVLogger(folder / "log.csv"),
            keras.callbacks.BackupAndRestore(
                folder / "backup", delete_checkpoint=False
            ),
            checkpoint(folder / "checkpoint.keras"),
            checkpoint(folder / "checkpoint.weights.h5", save_weights_only=True),
        ],
    )
    model.save(folder / "saved.keras")
    model.save(folder / "saved.h5")
    model.save_weights(folder / "saved.weights.h5")
    (folder / "model.json").write_text(model.to_json())
    for suffix in (".keras", ".h5", ".weights.h5"):
        publish(model, folder / f"published{suffix}", include_optimizer=True)
    if keras.backend.backend() == "tensorflow":
        model.export(folder / "exported", verbose=False)
    contents = {}
    for path in filter(lambda path: path.is_file(), folder.rglob("*")):
        name = str(path.relative_to(folder))
        contents[name] = path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    contents[f"{name}/{member}"] = archive.read(member)
    return model, contents


def test_all_kinds_of_files_were_written(written):
    _, contents = written
    names = "\n".join(contents)
    for part in ("marks/events", "logs/train/events", "checkpoint.keras/config.json"):
        assert part in names
    assert len(contents) >= 20


def test_neither_secret_nor_owner_is_in_any_file(written, owners_key):
    for name, content in written[1].items():
        # The log of the marks names their owner.
        if not name.startswith("marks/"):
            assert_no_secret_in(content, owners_key)


def test_the_log_of_the_marks_holds_no_secret(written):
    (log,) = (data for name, data in written[1].items() if name.startswith("marks/"))
    assert FIXED_SECRET not in log
    assert FIXED_SECRET.hex().encode() not in log.lower()


def test_no_row_of_x_and_no_filter_weights_are_in_any_file(written, owners_key):
    traces = {*traces_of_the_matrix(owners_key), *traces_of_the_weights(owners_key)}
    for name, content in written[1].items():
        present = [trace for trace in traces if trace in content]
        assert not present, f"{len(present)} pieces of the key are in {name}"


def test_the_search_would_find_them(owners_key):
    arrays = owners_key.for_shape((FEATURES, UNITS))
    stored = (arrays.matrix.T * arrays.signs).astype("float32").tobytes()
    assert any(trace in stored for trace in traces_of_the_matrix(owners_key))
    weights = arrays.filter_weights.astype("float32").T.copy().tobytes()
    assert any(trace in weights for trace in traces_of_the_weights(owners_key))


def test_the_searched_contents_are_those_of_the_model(written, owners_key):
    model, contents = written
    weights = kernel_of(model).tobytes()
    assert weights in contents["saved.keras/model.weights.h5"]
    assert weights in contents["saved.h5"]
    assert owners_key.commitment.encode() in contents["saved.keras/config.json"]
