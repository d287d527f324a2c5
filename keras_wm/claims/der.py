"""The order of the certificates in a time stamp.

A time stamp holds a set of certificates. Distinguished encoding sorts a set by its
bytes, which rfc3161-client requires. OpenSSL, and every authority that runs it, writes
the certificates in another order. The signature does not cover them.
"""

from __future__ import annotations

_SEQUENCE = 0x30
# Field 0 of a sequence.
_FIELD_0 = 0xA0
_LONG = 0x80


def with_sorted_certificates(response: bytes) -> bytes:
    """Returns an answer of an authority with its certificates in the right order.

    Args:
        response: A `TimeStampResp` of RFC 3161.

    Returns:
        The same answer. If it has another structure, it is returned unchanged.
    """
    try:
        status, token = _members(response, _SEQUENCE)
        content_type, content = _members(token, _SEQUENCE)
        (signed_data,) = _members(content, _FIELD_0)
        fields = _members(signed_data, _SEQUENCE)
        sets = [index for index, field in enumerate(fields) if field[0] == _FIELD_0]
        for index in sets:
            certificates = sorted(_members(fields[index], _FIELD_0))
            fields[index] = _encode(_FIELD_0, *certificates)
    except (IndexError, ValueError):
        return response
    content = _encode(_FIELD_0, _encode(_SEQUENCE, *fields))
    return _encode(_SEQUENCE, status, _encode(_SEQUENCE, content_type, content))


def _members(data: bytes, tag: int) -> list[bytes]:
    """Returns the encoded members of a value; raises ValueError if it is another."""
    start, end = _extent(data, 0)
    if data[0] != tag or end != len(data):
        raise ValueError("another structure")
    members = []
    while start < end:
        _, stop = _extent(data, start)
        members.append(data[start:stop])
        start = stop
    return members


def _extent(data: bytes, start: int) -> tuple[int, int]:
    """Returns the positions of the first and after the last byte of a value."""
    length, first = data[start + 1], start + 2
    if length & _LONG:
        size = length & ~_LONG
        length = int.from_bytes(data[first : first + size], "big")
        first += size
    if first + length > len(data):
        raise ValueError("a value is longer than the data")
    return first, first + length


def _encode(tag: int, *members: bytes) -> bytes:
    content = b"".join(members)
    size = len(content)
    if size < _LONG:
        return bytes([tag, size]) + content
    length = size.to_bytes(-(-size.bit_length() // 8), "big")
    return bytes([tag, _LONG | len(length)]) + length + content
