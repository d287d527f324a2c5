"""Claims that are dated first, to be chosen from later. All are stamped for real."""

from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm.research.attacks.forging import claims
from keras_wm.research.attacks.forging.forgery import fresh_key
from tests.claims.authority import Authority, needs_openssl
from tests.research.attacks.test_forging import FIRST, assert_no_evidence, network
from tests.verification.test_claimed import BEFORE

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tsa") / "a", "First")


@pytest.fixture(scope="module")
def base():
    """A public network that was never marked."""
    return network()


@pytest.fixture(scope="module")
def forged(base):
    return claims.claim_of_public_base(base, FIRST, seed=1)


def verified(forgery, **changes):
    """Returns the verdict on a forgery, with other arguments of the verifier."""
    return replace(forgery, arguments={**forgery.arguments, **changes}).verify()


def test_a_claim_of_a_public_base_is_no_evidence_with_the_base_as_a_control(
    forged, authority
):
    presented = forged.presented(authority)
    # It is older than the descendant. Without a control, the report asks for one.
    found = verified(presented, controls=[])
    assert (found.verdict, found.standing) == ("proven", "claimed")
    assert "this finding needs it as a control" in repr(found)
    found = presented.verify()
    assert found.standing == "private"
    assert "the mark was also found in" in found.claim.problem
    assert_no_evidence(found)


def test_a_claim_of_a_public_base_is_later_than_the_base(forged, authority):
    found = verified(forged.presented(authority), controls=[], published=BEFORE)
    assert found.standing == "private"
    assert "the model appeared on" in found.claim.problem
    assert_no_evidence(found)


def test_the_best_of_many_claims_is_as_significant_as_the_best_of_many_keys(
    base, authority
):
    forged = claims.bulk_claims(base, FIRST, seed=1, tries=8)
    assert forged.forgery.tries == 8
    found = forged.presented(authority).verify()
    claimed = next(a for a in found.attempts if a.name == "claimed layers")
    # The best of 8 has a p-value below 0.95 in all but 4e-11 of cases, and not below
    # 1e-8 in all but 1e-7.
    assert -8 < claimed.detection.log10_p < np.log10(0.95)
    assert_no_evidence(found)


def test_a_claimed_list_of_ground_names_is_counted(base, authority):
    forged = claims.claim_of_ground_names(base, FIRST, seed=1, tries=50)
    assert forged.claim.recipients.number == 50
    presented = forged.presented(authority)
    # A recipient's p-value is at most 3.2 times the tail of N(0, 1), so the best of 50
    # is below 0.2, uncorrected, in 96 % of cases. All is seeded.
    found = presented.verify()
    claimed = next(a for a in found.attempts if a.name == "claimed layers")
    assert claimed.detection.log10_p < np.log10(0.2)
    assert claimed.counted >= 50
    assert claimed.log10_p_corrected > -8
    assert_no_evidence(found)

    dating = {
        name: value for name, value in presented.arguments.items() if name != "layer"
    }
    names, key = forged.recipients, fresh_key(1)
    found = keras_wm.identify(base, key, names, FIRST, **dating)
    assert found.standing == "claimed"
    assert found.tests >= 50
    assert not found.named
    assert found.traces[0].log10_p > -8
    # Names that the claim does not list do not become evidence by it.
    names = [*names, "another customer"]
    found = keras_wm.identify(base, key, names, FIRST, **dating)
    assert found.standing == "private"


def test_a_claim_of_a_network_needs_one_that_can_be_crafted():
    inputs = keras.Input((64,))
    model = keras.Model(inputs, keras.layers.Dense(48, name=FIRST)(inputs))
    with pytest.raises(ValueError, match="can be reordered"):
        claims.claim_of_public_base(model, FIRST, seed=1)
