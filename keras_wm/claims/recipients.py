"""The list of recipients in a claim: one hash of a tree, and proofs of membership.

The tree has the shape of RFC 9162, with other prefixes. The shape follows from the
number of recipients, which is bound into the root: a root that says 1,000 cannot cover
more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_wm.claims.checks import check_count, check_digest, unexpected
from keras_wm.claims.facts import MOST_SLOTS
from keras_wm.errors import ClaimError
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.fields import join_fields

_DOMAIN = "keras_wm recipients 1"
_MOST_RECIPIENTS = 2**32
_PLAIN = ("slots", "position", "siblings")


@dataclass(frozen=True)
class RecipientsRoot:
    """The list of recipients, as a claim holds it.

    Attributes:
        root: Hash of the tree and of the number of recipients.
        number: Number of recipients. Every p-value of a recipient is multiplied by it.
    """

    root: str
    number: int

    def __post_init__(self) -> None:
        check_digest("root", self.root)
        check_count("number", self.number, 1, _MOST_RECIPIENTS)


@dataclass(frozen=True)
class Membership:
    """A proof that a recipient is in the list. It shows nothing of the others.

    Attributes:
        name: Name of the recipient.
        commitment: Commitment of the recipient's key.
        slots: Commitments to the slots of the recipient's key.
        position: Position of the recipient's leaf, from 0.
        siblings: Hashes beside the path from the leaf to the root, the leaf's first.
    """

    name: str
    commitment: str
    slots: tuple[str, ...]
    position: int
    siblings: tuple[str, ...]

    @classmethod
    def of_key(cls, key: WatermarkKey, fields: Mapping[str, Any]) -> Membership:
        """Returns the proof that the file of an opened recipient's key holds."""
        if not isinstance(fields, dict) or fields.keys() != set(_PLAIN):
            raise unexpected("membership", f"an object of {', '.join(_PLAIN)}", fields)
        slots, siblings = fields["slots"], fields["siblings"]
        for name, digests in (("slots", slots), ("siblings", siblings)):
            if not isinstance(digests, list) or len(digests) > MOST_SLOTS:
                raise unexpected(name, f"a list of at most {MOST_SLOTS}", digests)
            for digest in digests:
                check_digest(name, digest)
        check_count("position", fields["position"], 0, _MOST_RECIPIENTS)
        return cls(
            key.recipient,
            key.commitment,
            tuple(slots),
            fields["position"],
            tuple(siblings),
        )

    def to_plain(self) -> dict[str, Any]:
        """Returns the proof as plain values, without what the key itself holds."""
        return {
            "slots": list(self.slots),
            "position": self.position,
            "siblings": list(self.siblings),
        }

    def check(self, recipients: RecipientsRoot) -> None:
        """Raises ClaimError unless the proof belongs to a list of recipients."""
        try:
            tree = _climb(
                _leaf(self.name, self.commitment, self.slots),
                self.position,
                recipients.number,
                [bytes.fromhex(sibling) for sibling in self.siblings],
            )
            valid = _root(tree, recipients.number) == recipients.root
        except ValueError:
            valid = False
        if not valid:
            raise ClaimError(
                "The proof of membership does not belong to the claim's list of "
                f"{recipients.number:,} recipients. Use the proof that was made with "
                "this claim."
            )


def recipients_root(
    key: WatermarkKey, names: Sequence[str], slots: int
) -> RecipientsRoot:
    """Returns the hash of the list of recipients of a key.

    Args:
        key: The owner's key.
        names: Names of the recipients, in any order.
        slots: Number of slots that the claim commits to.

    Raises:
        ClaimError: If there is no name, or one is listed twice.
    """
    leaves = _leaves(key, names, slots)
    return RecipientsRoot(_root(_tree(leaves), len(leaves)), len(leaves))


def prove_membership(
    key: WatermarkKey, names: Sequence[str], slots: int, recipient: str
) -> Membership:
    """Returns the proof that a recipient is in the list; see `recipients_root`.

    Args:
        key: The owner's key.
        names: Names of all recipients.
        slots: Number of slots that the claim commits to.
        recipient: Name of the recipient.

    Raises:
        ClaimError: If the recipient is not in the list.
    """
    leaves = _leaves(key, names, slots)
    facts = _facts(key, recipient, slots)
    leaf = _leaf(*facts)
    if leaf not in leaves:
        raise ClaimError(
            f"Expected a recipient of the list. Received: {recipient!r}, which is not "
            f"among its {len(names)} names."
        )
    position = leaves.index(leaf)
    siblings = tuple(node.hex() for node in _siblings(leaves, position))
    return Membership(*facts, position, siblings)


def check_opened_recipient(
    key: WatermarkKey, recipients: RecipientsRoot | None
) -> None:
    """Raises ClaimError unless a recipient's opened slot belongs to a list.

    Args:
        key: The opened slot of a recipient's key, with its proof of membership.
        recipients: The list in the claim, or `None`.
    """
    if recipients is None:
        raise ClaimError(
            f"Expected the owner's key. Received the key of {key.recipient!r}, and the "
            "claim has no list of recipients."
        )
    if key.membership is None:
        raise ClaimError(
            "Expected an opened slot of a recipient's key, with its proof of "
            f"membership. Received: {key!r}. Make it with: keras-wm claim open CLAIM "
            "--key OWNER --recipient NAME --recipients FILE --slot N"
        )
    membership = Membership.of_key(key, key.membership)
    membership.check(recipients)
    if membership.slots[key.slot : key.slot + 1] != (key.slot_commitment(key.slot),):
        raise ClaimError(
            f"The proof of membership names another seed for slot {key.slot} than the "
            "key has. Use the proof that was made with this key."
        )


def _leaves(key: WatermarkKey, names: Sequence[str], slots: int) -> list[bytes]:
    """Returns the leaves of the tree, sorted, whatever the order of the names."""
    leaves = sorted(_leaf(*_facts(key, name, slots)) for name in names)
    if isinstance(names, str) or not leaves or len(set(leaves)) < len(leaves):
        raise ClaimError(
            "Expected a list of recipients' names, at least one, and each once. "
            f"Received: {len(leaves)} names."
        )
    return leaves


def _facts(
    key: WatermarkKey, name: str, slots: int
) -> tuple[str, str, tuple[str, ...]]:
    """Returns the name, the commitment and those to the slots of a recipient's key."""
    recipient = key.for_recipient(name)
    commitments = tuple(map(recipient.slot_commitment, range(slots)))
    return recipient.recipient, recipient.commitment, commitments


def _leaf(name: str, commitment: str, slots: Sequence[str]) -> bytes:
    # Nobody can guess a name from its leaf, because the commitment is as good as random
    # to all who do not know the key.
    return _hash("leaf", name, commitment, *slots)


def _node(left: bytes, right: bytes) -> bytes:
    return _hash("node", left, right)


def _root(tree: bytes, number: int) -> str:
    return _hash("root", number, tree).hex()


def _hash(*fields: bytes | int | str) -> bytes:
    return hashlib.sha256(join_fields(_DOMAIN, *fields)).digest()


def _tree(leaves: Sequence[bytes]) -> bytes:
    """Returns the hash of a tree, whose left part is the largest full one."""
    if len(leaves) == 1:
        return leaves[0]
    half = _half(len(leaves))
    return _node(_tree(leaves[:half]), _tree(leaves[half:]))


def _climb(node: bytes, position: int, count: int, siblings: list[bytes]) -> bytes:
    """Returns the hash of a tree from one leaf and the hashes beside its path.

    Raises:
        ValueError: If the position is not in the tree, or the path has another length.
    """
    if not 0 <= position < count or (count == 1) != (not siblings):
        raise ValueError("not a path of this tree")
    if count == 1:
        return node
    *lower, sibling = siblings
    half = _half(count)
    if position < half:
        return _node(_climb(node, position, half, lower), sibling)
    return _node(sibling, _climb(node, position - half, count - half, lower))


def _siblings(leaves: Sequence[bytes], position: int) -> list[bytes]:
    """Returns the hashes beside the path from a leaf to the root."""
    if len(leaves) == 1:
        return []
    half = _half(len(leaves))
    if position < half:
        return [*_siblings(leaves[:half], position), _tree(leaves[half:])]
    return [*_siblings(leaves[half:], position - half), _tree(leaves[:half])]


def _half(count: int) -> int:
    """Returns the largest power of two below a number."""
    return 1 << (count - 1).bit_length() - 1
