"""The example and the vectors of docs/claim.md."""

import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from keras_wm import Claim
from keras_wm.claims import ClaimedLayer, ModelDigest, RecipientsRoot, weight_digest
from keras_wm.claims.recipients import recipients_root
from tests.claims.test_claim import digest_of_file
from tests.conftest import fixed_key

PAGE = Path(__file__, "../../../docs/claim.md").resolve().read_text("utf-8")
NAMES = ["customer-17", "customer-18", "customer-19"]


def example():
    """Returns the claim that docs/claim.md shows."""
    key = fixed_key(256)
    return Claim(
        commitment=key.commitment,
        owner=key.owner,
        bits=key.bits,
        projection=key.projection,
        filters=key.filters,
        slots=(key.slot_commitment(0), key.slot_commitment(1)),
        layers=(ClaimedLayer("block4_conv2", 1, (3, 3, 64, 128)),),
        jointly=False,
        model=ModelDigest(weights="11" * 32, file="22" * 32),
        nonce="33" * 32,
        recipients=RecipientsRoot(*recipients_of(key)),
    )


def recipients_of(key):
    root = recipients_root(key, NAMES, 2)
    return root.root, root.number


def test_the_example_is_a_claim_and_has_the_digest(tmp_path):
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "example.claim"
    path.write_text(text, "utf-8")
    claim = Claim.load(path)
    assert claim == example()
    assert claim.digest == digest_of_file(path)
    assert f"`{claim.digest}`" in PAGE
    written = claim.save(tmp_path / "written.claim")
    assert json.loads(written.read_text("utf-8")) == json.loads(text)


def test_the_vectors_of_weights_and_recipients(tmp_path):
    arrays = {
        "a": np.array([[1, 2], [3, 4]], "float32"),
        "b": np.array([0, -1], "float32"),
    }
    save_file(arrays, tmp_path / "a.safetensors")
    assert f"`{weight_digest(tmp_path / 'a.safetensors')}`" in PAGE
    assert f"`{recipients_root(fixed_key(256), NAMES, 2).root}`" in PAGE
