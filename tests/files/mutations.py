"""Ways to spoil a file, each by a random generator that can be seeded."""

import io
import json
import zipfile

INTEGERS = [0, 1, 2, 7, 8, 255, 256, 2**16 - 1, 2**16, 2**31 - 1, 2**31]
INTEGERS += [2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1]
VALUES = [None, True, 0, -1, 2**63, 10**400, 1.5, "", "a" * 5000, "\x1b[2J", "../a"]
VALUES += [[], {}, [[]], [[0, 10**12]], {"class_name": []}, {"config": {"layers": {}}}]
VALUES += ["F32", "BF16", "I64", "__proto__", "model.weights.h5", "\ud800"]


def mutate(random, data, other):
    """A file that was good, with one or several things done to it.

    Args:
        random: A `random.Random`.
        data: The bytes of the file.
        other: The bytes of another file, to be spliced in.

    Returns:
        The spoilt bytes.
    """
    if data[:4] == b"PK\x03\x04" and random.random() < 0.5:
        data = mutate_members(random, data, other)
        if random.random() < 0.7:
            return data
    elif data[:1] in (b"{", b"[") and random.random() < 0.5:
        return mutate_json(random, data)
    for _ in range(random.choice([1, 1, 1, 2, 4, 8])):
        data = random.choice(BLIND)(random, data, other)
    return data


def flip(random, data, _):
    """Some bytes changed, wherever they are."""
    data = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 8]) if data else 0):
        place = random.randrange(len(data))
        data[place] = random.choice(
            [data[place] ^ 1 << random.randrange(8), 0, 255, random.randrange(256)]
        )
    return bytes(data)


def overwrite_integer(random, data, _):
    """An integer that is often a limit, in the place of some bytes."""
    size = random.choice([1, 2, 4, 8])
    place = random.randrange(max(1, len(data) - size))
    order = random.choice(["little", "little", "big"])
    value = (random.choice(INTEGERS) % 256**size).to_bytes(size, order)
    return data[:place] + value + data[place + size :]


def copy_integer(random, data, _):
    """Eight bytes from elsewhere, such as the address of another object."""
    places = [8 * random.randrange(max(1, len(data) // 8)) for _ in range(2)]
    return data[: places[0]] + data[places[1] :][:8] + data[places[0] + 8 :]


def swap_blocks(random, data, _):
    """Two blocks in each other's place."""
    size = random.choice([4, 16, 64, 512, 4096])
    first, second = sorted(random.randrange(max(1, len(data))) for _ in range(2))
    second = max(second, first + size)
    a, b = data[first : first + size], data[second : second + size]
    between = data[first + size : second]
    return data[:first] + b + between + a + data[second + size :]


def truncate(random, data, _):
    """The file's start."""
    return data[: random.randrange(len(data) + 1)]


def insert(random, data, _):
    """Bytes put in between."""
    place = random.randrange(len(data) + 1)
    count = random.choice([1, 2, 8, 100])
    new = random.choice([bytes(count), b"\xff" * count, random.randbytes(count)])
    return data[:place] + new + data[place:]


def delete(random, data, _):
    """Bytes taken out."""
    place = random.randrange(len(data) + 1)
    return data[:place] + data[place + random.choice([1, 2, 8, 100]) :]


def splice(random, data, other):
    """The start of the file, and the end of another."""
    place = random.randrange(len(data) + 1)
    if random.random() < 0.5:
        return data[:place] + other[place:]
    return data[:place] + other[random.randrange(len(other) + 1) :]


BLIND = (flip, flip, overwrite_integer, overwrite_integer, copy_integer)
BLIND += (swap_blocks, truncate, insert, delete, splice)


def mutate_members(random, data, other):
    """An archive that is whole again, of members that were changed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, OSError):
        return data
    index = random.randrange(len(members))
    name, content = members[index]
    if content[:1] in (b"{", b"[") and random.random() < 0.7:
        content = mutate_json(random, content)
    else:
        content = random.choice(BLIND)(random, content, other)
    name = random.choice([name] * 8 + ["../" + name, name + "\0a", "a" * 3000])
    members[index] = name, content
    if random.random() < 0.1:
        members.pop(random.randrange(len(members)))
    method = random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return written.getvalue()


def mutate_json(random, data):
    """JSON of which some values are others."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(random.choice([1, 1, 2, 5])):
        holders = list(_holders(value))
        if not holders:
            break
        holder = random.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = random.choice(list(keys))
        what = random.randrange(4)
        if what == 0 and isinstance(holder, dict):
            name = random.choice(["", "name", "config", "layers", "a/b"])
            holder[name] = _copy(holder[key])
        elif what == 1:
            del holder[key]
        elif what == 2:
            holder[key] = _copy(random.choice(holders))
        else:
            holder[key] = _copy(random.choice(VALUES))
    return json.dumps(value).encode()


def _copy(value):
    return json.loads(json.dumps(value))


def _holders(value):
    """Every list and dictionary in a value that has something in it."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list) and value:
            yield value
            waiting += value.values() if isinstance(value, dict) else value
