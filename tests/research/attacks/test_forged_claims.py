"""Claims that are dated first, to be chosen from later. All are stamped for real."""

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm.research.attacks.forging import claims
from keras_wm.research.attacks.forging.references import copy_of
from tests.claims.authority import Authority, needs_openssl
from tests.research.attacks.test_forging import FIRST, assert_no_evidence, network
from tests.verification.test_claimed import BEFORE, TOMORROW, stamped

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tsa") / "a", "First")


@pytest.fixture(scope="module")
def base():
    """A public network that was never marked."""
    return network()


@pytest.fixture(scope="module")
def descendant(base):
    """A network that somebody trained from the public one."""
    model = copy_of(base)
    rng = np.random.default_rng(8)
    for layer in model.layers:
        kernel = np.asarray(layer.kernel)
        noise = rng.normal(0, 0.1 * kernel.std(), kernel.shape)
        layer.kernel.assign(kernel + noise)
    return model


def evidence(forged, authority, published=TOMORROW):
    return {
        "claim": stamped(forged.claim, authority),
        "published": published,
        "tsa_certificates": authority.roots,
    }


def test_a_claim_of_a_public_base_is_no_evidence_with_the_base_as_a_control(
    base, descendant, authority
):
    forged = claims.claim_of_public_base(base, FIRST, seed=1)
    dated = evidence(forged, authority) | {"reference": forged.reference}
    # It is older than the descendant. Without a control, the report asks for one.
    found = keras_wm.verify(descendant, forged.key, **dated)
    assert (found.verdict, found.standing) == ("proven", "claimed")
    assert "this finding needs it as a control" in repr(found)
    found = keras_wm.verify(descendant, forged.key, controls=[base], **dated)
    assert found.standing == "private"
    assert "the mark was also found in" in found.claim.problem
    assert_no_evidence(found)


def test_a_claim_of_a_public_base_is_later_than_the_base(base, descendant, authority):
    forged = claims.claim_of_public_base(base, FIRST, seed=1)
    dated = evidence(forged, authority, published=BEFORE)
    found = keras_wm.verify(descendant, forged.key, reference=forged.reference, **dated)
    assert found.standing == "private"
    assert "the model appeared on" in found.claim.problem
    assert_no_evidence(found)


def test_the_best_of_many_claims_is_as_significant_as_the_best_of_many_keys(
    base, authority
):
    forged = claims.bulk_claims(base, FIRST, seed=1, tries=8)
    assert forged.tries == 8
    found = keras_wm.verify(base, forged.key, **evidence(forged, authority))
    claimed = next(a for a in found.attempts if a.name == "claimed layers")
    # The best of 8 has a p-value below 0.95 in all but 4e-11 of cases, and not below
    # 1e-8 in all but 1e-7.
    assert -8 < claimed.detection.log10_p < np.log10(0.95)
    assert_no_evidence(found)


def test_a_claimed_list_of_ground_names_is_counted(base, authority):
    forged = claims.claim_of_ground_names(base, FIRST, seed=1, tries=50)
    assert forged.claim.recipients.number == 50
    dated = evidence(forged, authority)
    found = keras_wm.identify(base, forged.key, forged.recipients, FIRST, **dated)
    assert found.standing == "claimed"
    assert found.tests >= 50
    assert not found.named
    assert found.traces[0].log10_p > -8
    # Names that the claim does not list do not become evidence by it.
    names = [*forged.recipients, "another customer"]
    found = keras_wm.identify(base, forged.key, names, FIRST, **dated)
    assert found.standing == "private"


def test_a_claim_of_a_network_needs_one_that_can_be_crafted():
    inputs = keras.Input((64,))
    model = keras.Model(inputs, keras.layers.Dense(48, name=FIRST)(inputs))
    with pytest.raises(ValueError, match="can be reordered"):
        claims.claim_of_public_base(model, FIRST, seed=1)
