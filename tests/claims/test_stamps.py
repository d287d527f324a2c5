"""The date of a claim, with real authorities on loopback."""

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    decode_timestamp_response,
)

from keras_wm import Claim, ClaimError
from keras_wm.claims import Stamp, dated, renew, stamp
from keras_wm.claims.dating import check_stamps
from keras_wm.claims.der import with_sorted_certificates
from keras_wm.research.attacks.forging.authority import years
from tests.claims.authority import Authority, needs_openssl

pytestmark = needs_openssl

MINUTE = timedelta(minutes=1)


def query(message, algorithm=HashAlgorithm.SHA256):
    """Returns a request for a stamp of a message."""
    return TimestampRequestBuilder(message, algorithm).build().as_bytes()


def stamped_at(claim, authority, time, renewal=False, signer=None):
    """Returns a claim with a stamp of another time."""
    covered = claim.stamps if renewal else ()
    request = query(claim.stamped_bytes(covered))
    response = authority.respond_at(request, time, signer)
    return claim.with_stamp(Stamp(response, renewal))


@pytest.fixture(scope="module")
def stamped(claim, authority):
    """The claim with a stamp that the authority gave over HTTP."""
    with authority.serving() as url:
        return stamp(claim, url, authority.roots)


def test_a_stamped_claim_is_dated_offline(stamped, authority, tmp_path):
    loaded = Claim.load(stamped.save(tmp_path / "a.claim"))
    date = dated(loaded, authority.roots)
    assert abs(datetime.now(UTC) - date) < 10 * MINUTE
    dating = check_stamps(loaded, [authority.roots])
    assert (dating.date, dating.renewals) == (date, 0)
    assert dating.authority == "CN=First TSA"
    assert abs(dating.until - years(5)) < timedelta(days=1)


def test_the_authority_sees_the_digest_only(claim, authority):
    requests = []

    def answer(request):
        requests.append(request)
        return authority.respond(request)

    with authority.serving(answer) as url:
        stamp(claim, url)
    (request,) = requests
    assert bytes.fromhex(claim.digest) in request
    assert len(request) < 100


def test_the_digest_can_be_stamped_with_other_programs(claim, authority):
    request = authority.openssl("ts", "-query", "-digest", claim.digest, "-cert")
    by_hand = claim.with_stamp(Stamp(authority.respond(request)))
    assert dated(by_hand, authority.roots)


def test_other_programs_accept_the_stamp(stamped, authority, tmp_path):
    (authority.folder / "stamp.tsr").write_bytes(stamped.stamps[0].response)
    command = ["ts", "-verify", "-in", "stamp.tsr", "-CAfile", str(authority.roots)]
    command += ["-untrusted", str(authority.chain), "-digest"]
    assert b"OK" in authority.openssl(*command, stamped.digest)
    changed = replace(stamped, nonce="00" * 32)
    with pytest.raises(RuntimeError, match="imprint mismatch"):
        authority.openssl(*command, changed.digest)


def test_a_stronger_hash_is_accepted_and_a_weaker_one_is_not(claim, authority):
    request = query(claim.stamped_bytes(), HashAlgorithm.SHA512)
    assert dated(claim.with_stamp(Stamp(authority.respond(request))), authority.roots)
    (authority.folder / "message").write_bytes(claim.stamped_bytes())
    weak = authority.openssl("ts", "-query", "-data", "message", "-sha1", "-cert")
    with pytest.raises(ClaimError, match="hash algorithm"):
        dated(claim.with_stamp(Stamp(authority.respond(weak))), authority.roots)


def test_a_changed_claim_is_not_dated(stamped, authority):
    changed = replace(stamped, nonce="00" * 32)
    with pytest.raises(ClaimError, match="the claim was changed"):
        dated(changed, authority.roots)


def test_a_changed_byte_of_the_file_is_noticed(stamped, authority, tmp_path):
    path = stamped.save(tmp_path / "a.claim")
    content = json.loads(path.read_text("utf-8"))
    weights = content["claim"]["model"]["weights"]
    changed = ("0" if weights[0] != "0" else "1") + weights[1:]
    path.write_text(path.read_text("utf-8").replace(weights, changed), "utf-8")
    with pytest.raises(ClaimError, match="the claim was changed"):
        dated(Claim.load(path), authority.roots)


def test_every_byte_of_a_stamp_is_noticed_or_says_nothing(stamped, authority):
    date, (whole,) = dated(stamped, authority.roots), stamped.stamps
    for position in range(0, len(whole.response), 17):
        data = bytearray(whole.response)
        data[position] ^= 1
        changed = replace(stamped, stamps=(Stamp(bytes(data)),))
        try:
            assert dated(changed, authority.roots) == date
        except ClaimError as error:
            assert "not dated" in str(error)


def test_an_authority_that_the_verifier_does_not_trust_gives_no_date(
    stamped, authority, later_authority
):
    # Neither the intermediate nor the signing certificate is a root.
    for trusted in (
        later_authority.roots,
        authority.chain,
        authority.folder / "signer.pem",
    ):
        with pytest.raises(ClaimError, match="does not lead to a trusted root"):
            dated(stamped, trusted)
    assert dated(stamped, [later_authority.roots, authority.roots])


def test_roots_inside_a_stamp_are_not_trusted(claim, tmp_path, later_authority):
    own = Authority(tmp_path / "own", "Own")
    own.chain.write_bytes(own.chain.read_bytes() + own.roots.read_bytes())
    response = own.respond(query(claim.stamped_bytes()))
    with pytest.raises(ClaimError, match="does not lead to a trusted root"):
        dated(claim.with_stamp(Stamp(response)), later_authority.roots)


def test_an_authority_of_the_same_name_is_another_one(claim, authority, tmp_path):
    imitation = Authority(tmp_path / "tsa", "First")
    response = imitation.respond(query(claim.stamped_bytes()))
    with pytest.raises(ClaimError, match="does not lead to a trusted root"):
        dated(claim.with_stamp(Stamp(response)), authority.roots)


@pytest.mark.parametrize(
    "settings",
    [
        {"usage": None},
        {"usage": (ExtendedKeyUsageOID.CODE_SIGNING,)},
        {
            "usage": (
                ExtendedKeyUsageOID.TIME_STAMPING,
                ExtendedKeyUsageOID.CODE_SIGNING,
            )
        },
        {"critical": False},
    ],
)
def test_a_certificate_for_something_else_gives_no_date(
    claim, authority, tmp_path, settings
):
    other = Authority(tmp_path / "tsa", **settings)
    wrong = stamped_at(claim, authority, years(0), signer=other)
    with pytest.raises(ClaimError, match="made for time stamps"):
        dated(wrong, other.roots)


@pytest.mark.parametrize(
    "settings", [{"valid": (-10, -1)}, {"valid": (1, 2)}, {"root_valid": (-20, -1)}]
)
def test_a_chain_that_is_not_valid_at_the_time_of_the_stamp_gives_no_date(
    claim, authority, tmp_path, settings
):
    other = Authority(tmp_path / "tsa", **settings)
    wrong = stamped_at(claim, authority, datetime.now(UTC), signer=other)
    with pytest.raises(ClaimError, match="valid at its time"):
        dated(wrong, other.roots)


def test_a_stamp_of_the_past_counts_while_its_chain_is_valid(claim, authority):
    time = years(-3).replace(microsecond=0)
    assert dated(stamped_at(claim, authority, time), authority.roots) == time


def test_a_stamp_from_the_future_gives_no_date(claim, authority):
    with pytest.raises(ClaimError, match="has not come yet"):
        dated(stamped_at(claim, authority, years(1)), authority.roots)


def test_a_stamp_counts_until_its_certificates_expire(stamped, authority):
    assert dated(stamped, authority.roots, now=years(4.9))
    with pytest.raises(ClaimError, match="'CN=First TSA' expired on 20"):
        dated(stamped, authority.roots, now=years(5.1))


def test_a_renewed_claim_keeps_its_date(stamped, authority, later_authority):
    with later_authority.serving() as url:
        renewed = renew(stamped, url, later_authority.roots)
    assert renewed.digest == stamped.digest
    roots = [authority.roots, later_authority.roots]
    date = dated(stamped, authority.roots)
    assert dated(renewed, roots, now=years(20)) == date
    assert check_stamps(renewed, roots, years(20)).renewals == 1
    assert check_stamps(renewed, roots).renewals == 0
    with pytest.raises(ClaimError, match="does not lead to a trusted root"):
        dated(renewed, later_authority.roots, now=years(20))
    with pytest.raises(ClaimError, match="expired"):
        dated(renewed, authority.roots, now=years(20))


def test_a_renewal_after_the_certificates_expired_does_not_help(
    claim, authority, later_authority
):
    first = stamped_at(claim, authority, years(-1))
    for time, counts in ((years(4.9), True), (years(5.1), False)):
        renewed = stamped_at(first, later_authority, time, renewal=True)
        roots = [authority.roots, later_authority.roots]
        if counts:
            assert dated(renewed, roots, now=years(20)) < years(0)
        else:
            with pytest.raises(ClaimError, match="no renewal before that day"):
                dated(renewed, roots, now=years(20))


def test_renewals_form_a_chain(claim, authority, later_authority, tmp_path):
    middle = Authority(tmp_path / "tsa", "Middle", valid=(-10, 15))
    time = years(-1).replace(microsecond=0)
    chain = stamped_at(claim, authority, time)
    chain = stamped_at(chain, middle, years(4), renewal=True)
    chain = stamped_at(chain, later_authority, years(14), renewal=True)
    roots = [authority.roots, middle.roots, later_authority.roots]
    dating = check_stamps(chain, roots, years(30))
    assert (dating.date, dating.renewals) == (time, 2)
    # Without the renewal in the middle, the first stamp is not carried on.
    with pytest.raises(ClaimError, match="expired"):
        dated(chain, [authority.roots, later_authority.roots], now=years(30))


def test_a_renewal_covers_every_earlier_stamp(stamped, claim, authority, tmp_path):
    renewed = stamped_at(stamped, authority, years(0), renewal=True)
    other = stamped_at(claim, authority, years(-2)).stamps[0]
    swapped = replace(renewed, stamps=(other, renewed.stamps[1]))
    with pytest.raises(ClaimError, match="expired"):
        dated(swapped, authority.roots, now=years(5.1))
    # A renewal alone does not date the claim, and no stamp passes for a renewal.
    for stamps in (
        (stamped.stamps[0], Stamp(stamped.stamps[0].response, renewal=True)),
        (Stamp(renewed.stamps[1].response), renewed.stamps[1]),
    ):
        assert replace(claim, stamps=stamps) != stamped
    alone = replace(claim, stamps=(Stamp(renewed.stamps[1].response),))
    with pytest.raises(ClaimError, match="stamps something else"):
        dated(alone, authority.roots)


def test_the_earliest_of_several_stamps_is_the_date(claim, authority, later_authority):
    both = stamped_at(claim, later_authority, years(-1))
    both = stamped_at(both, authority, years(-2))
    roots = [authority.roots, later_authority.roots]
    assert dated(both, roots) < years(-1.5)
    assert dated(both, later_authority.roots) > years(-1.5)


def test_a_claim_without_stamps_is_not_dated(claim, authority):
    with pytest.raises(ClaimError, match="has no time stamp"):
        dated(claim, authority.roots)
    with pytest.raises(ClaimError, match="to renew"):
        renew(claim, "http://127.0.0.1:1")


def test_a_file_without_certificates_is_a_clear_error(stamped, model_file, tmp_path):
    for path in (model_file, tmp_path / "none.pem"):
        with pytest.raises(ClaimError, match=f"in PEM.*{path.name}"):
            dated(stamped, path)


def test_now_needs_a_time_zone(stamped, authority):
    naive = datetime.now(UTC).replace(tzinfo=None)
    with pytest.raises(ValueError, match="time zone"):
        dated(stamped, authority.roots, now=naive)


@pytest.mark.parametrize("trusted", [False, True])
def test_an_answer_to_another_request_is_refused(claim, authority, trusted):
    def replayed(request):
        return authority.respond(query(claim.stamped_bytes()))

    with (
        authority.serving(replayed) as url,
        pytest.raises(ClaimError, match="another request"),
    ):
        stamp(claim, url, authority.roots if trusted else None)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_stamp_of_another_hash_is_refused(claim, authority, trusted):
    def other(request):
        digest = bytes.fromhex(claim.digest)
        return authority.respond(request.replace(digest, digest[::-1]))

    with (
        authority.serving(other) as url,
        pytest.raises(ClaimError, match=r"another hash|something else"),
    ):
        stamp(claim, url, authority.roots if trusted else None)


def test_with_roots_the_signature_is_verified_at_once(
    claim, authority, later_authority
):
    with (
        authority.serving() as url,
        pytest.raises(ClaimError, match=r"trusted root.*Nothing was saved"),
    ):
        stamp(claim, url, later_authority.roots)


def test_a_refusal_of_the_authority_is_reported(claim, authority):
    def refuse(_):
        return authority.respond(b"not a request")

    with (
        authority.serving(refuse) as url,
        pytest.raises(ClaimError, match="the authority refused the request"),
    ):
        stamp(claim, url)


@pytest.mark.parametrize(
    ("answer", "settings", "complaint"),
    [
        (b"<html>", {"kind": "text/html"}, "text/html"),
        (b"no", {"status": 503}, "503"),
        (b"garbage", {}, "not an answer of RFC 3161"),
        (b"", {}, "not an answer of RFC 3161"),
        (bytes(200_000), {}, "larger than 65,536 bytes"),
    ],
)
def test_an_answer_that_is_not_a_stamp_is_refused(
    claim, authority, answer, settings, complaint
):
    with (
        authority.serving(lambda _: answer, **settings) as url,
        pytest.raises(ClaimError, match=complaint),
    ):
        stamp(claim, url)


def test_an_authority_that_does_not_answer_costs_one_error(claim, authority):
    finished = threading.Event()

    def wait(_):
        finished.wait(10)
        return b""

    with authority.serving(wait) as url:
        with pytest.raises(ClaimError, match="gave no answer: timed out"):
            stamp(claim, url, timeout=0.05)
        finished.set()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "tsa.example", ""])
def test_only_http_is_used(claim, url):
    with pytest.raises(ClaimError, match="with http or https"):
        stamp(claim, url)


def test_an_authority_that_cannot_be_reached_is_a_clear_error(claim):
    with pytest.raises(ClaimError, match=r"gave no answer: .*refused"):
        stamp(claim, "http://127.0.0.1:1/tsr")


def test_without_the_package_the_error_names_the_extra(
    claim, stamped, authority, monkeypatch
):
    monkeypatch.setitem(__import__("sys").modules, "rfc3161_client", None)
    for call in (
        lambda: stamp(claim, "http://127.0.0.1:1"),
        lambda: dated(stamped, authority.roots),
    ):
        with pytest.raises(ImportError, match=r"keras-wm\[claims\]"):
            call()


def test_certificates_are_sorted_and_nothing_else_changes(authority):
    # `openssl ts` writes the signing certificate first, which is the longest one.
    response = authority.respond(query(b"message"))
    ordered = with_sorted_certificates(response)
    assert ordered != response
    assert sorted(ordered) == sorted(response)
    assert with_sorted_certificates(ordered) == ordered
    assert decode_timestamp_response(ordered).status == 0


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x84", b"\x30\x00", b"\x31\x02"])
def test_sorting_leaves_other_data_alone(data):
    assert with_sorted_certificates(data) == data
