"""Random changes that damage a file, reproducible by the seed of the generator."""

import io
import json
import zipfile

INTEGERS = [0, 1, 2, 7, 8, 255, 256, 2**16 - 1, 2**16, 2**31 - 1, 2**31]
INTEGERS += [2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1]
VALUES = [None, True, 0, -1, 2**63, 10**400, 1.5, "", "a" * 5000, "\x1b[2J", "../a"]
VALUES += [[], {}, [[]], [[0, 10**12]], {"class_name": []}, {"config": {"layers": {}}}]
VALUES += ["F32", "BF16", "I64", "__proto__", "model.weights.h5", "\ud800"]


def mutate(random, data, other):
    """Returns a good file after one or several random changes.

    Args:
        random: A `random.Random`.
        data: Bytes of the file.
        other: Bytes of another file, to splice in.
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
    """Changes some bytes."""
    data = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 8]) if data else 0):
        position = random.randrange(len(data))
        data[position] = random.choice(
            [data[position] ^ 1 << random.randrange(8), 0, 255, random.randrange(256)]
        )
    return bytes(data)


def overwrite_integer(random, data, _):
    """Overwrites some bytes with an integer that is often a boundary case."""
    size = random.choice([1, 2, 4, 8])
    position = random.randrange(max(1, len(data) - size))
    order = random.choice(["little", "little", "big"])
    value = (random.choice(INTEGERS) % 256**size).to_bytes(size, order)
    return data[:position] + value + data[position + size :]


def copy_integer(random, data, _):
    """Overwrites eight bytes with others of the file, such as another address."""
    positions = [8 * random.randrange(max(1, len(data) // 8)) for _ in range(2)]
    return data[: positions[0]] + data[positions[1] :][:8] + data[positions[0] + 8 :]


def swap_blocks(random, data, _):
    """Exchanges two blocks."""
    size = random.choice([4, 16, 64, 512, 4096])
    first, second = sorted(random.randrange(max(1, len(data))) for _ in range(2))
    second = max(second, first + size)
    a, b = data[first : first + size], data[second : second + size]
    between = data[first + size : second]
    return data[:first] + b + between + a + data[second + size :]


def truncate(random, data, _):
    """Keeps only the start of the file."""
    return data[: random.randrange(len(data) + 1)]


def insert(random, data, _):
    """Inserts bytes."""
    position = random.randrange(len(data) + 1)
    count = random.choice([1, 2, 8, 100])
    new = random.choice([bytes(count), b"\xff" * count, random.randbytes(count)])
    return data[:position] + new + data[position:]


def delete(random, data, _):
    """Deletes bytes."""
    position = random.randrange(len(data) + 1)
    return data[:position] + data[position + random.choice([1, 2, 8, 100]) :]


def splice(random, data, other):
    """Joins the start of the file and the end of another."""
    position = random.randrange(len(data) + 1)
    if random.random() < 0.5:
        return data[:position] + other[position:]
    return data[:position] + other[random.randrange(len(other) + 1) :]


BLIND = (flip, flip, overwrite_integer, overwrite_integer, copy_integer)
BLIND += (swap_blocks, truncate, insert, delete, splice)


def mutate_members(random, data, other):
    """Changes a member, and writes a valid archive again."""
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
    """Changes some values of a JSON text, and writes valid JSON again."""
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
        change = random.randrange(4)
        if change == 0 and isinstance(holder, dict):
            name = random.choice(["", "name", "config", "layers", "a/b"])
            holder[name] = _copy(holder[key])
        elif change == 1:
            del holder[key]
        elif change == 2:
            holder[key] = _copy(random.choice(holders))
        else:
            holder[key] = _copy(random.choice(VALUES))
    return json.dumps(value).encode()


def _copy(value):
    return json.loads(json.dumps(value))


def _holders(value):
    """Yields every list and dictionary in a value that is not empty."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list) and value:
            yield value
            waiting += value.values() if isinstance(value, dict) else value
