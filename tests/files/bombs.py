"""Model files that make a reader spend more time or memory than any model needs.

`python -m tests.files.bombs` lists the kernels of each and reads ten of them, in a
process of its own, and prints the memory and processor time that this took.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

from tests.files.written import (
    DENSE,
    KERNEL,
    weights_bytes,
    write_archive,
    write_weights,
)
from tests.files.zip_by_hand import (
    deflated_zeros,
    stored,
    write_archive_of,
    write_members,
    zeros,
)

WEIGHTS = "model.weights.h5"


def groups_in_one_group(path):
    """30,000 groups side by side."""
    with h5py.File(write_weights(path), "r+") as file:
        for index in range(30_000):
            h5py.h5g.create(file["layers"].id, b"%d" % index)


def groups_in_a_tree(path):
    """60,000 groups, 300 in each of 200."""
    with h5py.File(write_weights(path), "r+") as file:
        for outer in range(200):
            group = file.create_group(f"g{outer}")
            for inner in range(300):
                h5py.h5g.create(group.id, b"%d" % inner)


def links_to_one_group(path):
    """60,000 links to one group, in three groups."""
    with h5py.File(write_weights(path), "r+") as file:
        group = file["layers"].id
        for outer in range(3):
            names = file.create_group(f"g{outer}").id
            for inner in range(20_000):
                names.links.create_hard(b"%d" % inner, group, b"dense")


def kernels_by_the_thousand(path):
    """19,000 kernels, almost as many as the limit allows in one group."""
    with h5py.File(write_weights(path), "r+") as file:
        group = file[f"{DENSE}/vars"].id
        for index in range(1, 19_000):
            _create_small(group, b"%d" % index, (2, 2))


def _create_small(group, name, shape):
    """Creates an array that is stored inside its own header, which is fast."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.COMPACT)
    plan.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(group, name, h5py.h5t.IEEE_F32LE, space, plan)


def ten_thousand_layers(path):
    """A legitimate model of 10,000 layers, with a kernel and a bias each."""
    with h5py.File(path, "w") as file:
        layers = file.create_group("layers").id
        name = h5py.h5t.C_S1.copy()
        name.set_size(8)
        scalar = h5py.h5s.create(h5py.h5s.SCALAR)
        for index in range(10_000):
            layer = h5py.h5g.create(layers, b"dense_%d" % index)
            variables = h5py.h5g.create(layer, b"vars")
            attribute = h5py.h5a.create(variables, b"name", name, scalar)
            attribute.write(np.array(b"d%d" % index, "S8"))
            _create_small(variables, b"0", (2, 2))
            _create_small(variables, b"1", (2,))


def groups_in_groups(path):
    """Groups 20,000 deep."""
    with h5py.File(write_weights(path), "r+", libver="latest") as file:
        group = file.id
        for _ in range(20_000):
            group = h5py.h5g.create(group, b"a")


def long_text(path):
    """A layer's name of 200 MB, whose length is unknown before it is read."""
    write_weights(path, name="a" * 200_000_000)


def long_fixed_text(path):
    """A layer's name of 200 MB, of fixed length."""
    with h5py.File(path, "w", libver="latest") as file:
        variables = file.create_group(f"{DENSE}/vars")
        variables["0"] = KERNEL
        variables.attrs["name"] = np.bytes_(b"a" * 200_000_000)


def thousands_of_attributes(path):
    """A group of 20,000 attributes."""
    with h5py.File(path, "w", libver="latest") as file:
        variables = file.create_group(f"{DENSE}/vars")
        variables["0"] = KERNEL
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        for index in range(20_000):
            h5py.h5a.create(variables.id, b"%d" % index, h5py.h5t.IEEE_F32LE, space)


def _write_chunk(path, shape, chunk, data):
    """Writes an array of one deflated chunk, given as the stored bytes."""
    with h5py.File(write_weights(path), "r+") as file:
        array = file.create_dataset(
            "vars/0", shape, "f4", chunks=chunk, compression="gzip"
        )
        array.id.write_direct_chunk((0, 0), data)


def chunk_of_more_than_it_holds(path):
    """A chunk of 4 MB that inflates to 1 GB."""
    _write_chunk(path, (1000, 1000), (1000, 1000), deflated_zeros(1024, form=15))


def chunk_of_a_gigabyte(path):
    """An array of one chunk of 1 GB, deflated to 1 MB."""
    _write_chunk(path, (2**14, 2**14), (2**14, 2**14), deflated_zeros(1024, form=15))


def array_of_two_gigabytes(path):
    """An array of 2 GB in small chunks that inflate to the declared size."""
    with h5py.File(write_weights(path), "r+") as file:
        array = file.create_dataset(
            "vars/0", (2**9, 2**20), "f4", chunks=(1, 2**20), compression="gzip"
        )
        chunk = deflated_zeros(4, form=15)
        for row in range(2**9):
            array.id.write_direct_chunk((row, 0), chunk)


def chunks_by_the_hundred_thousand(path):
    """An array in 90,000 chunks."""
    kernel = np.ones((300, 300), "float32")
    write_weights(path, kernel=kernel, chunks=(1, 1), compression="gzip")


def zip_of_eight_gigabytes(path):
    """Weights that inflate to 8 GB, from 8 MB."""
    write_members(path, stored("config.json", b"{}"), zeros(WEIGHTS, 4000))


def zip_that_inflates_well(path):
    """Damaged weights that first inflate to 900 MB, 150 times their stored size."""
    member = zeros(WEIGHTS, 900, weights_bytes())
    padding = np.random.default_rng(0).bytes(5_000_000)
    deflated = type(member)(WEIGHTS, member.stored + padding, member.size)
    write_members(path, stored("config.json", b"{}"), deflated)


def zip_in_a_zip(path):
    """Weights that are an archive of 1 GB, itself deflated twice."""
    inner = write_members(path, zeros(WEIGHTS, 1000)).read_bytes()
    write_archive(path, inner)


def zip_of_many_members(path):
    """An archive with 50,000 entries."""
    member = stored(WEIGHTS, b"")
    body = member.header() * 50_000
    step = len(member.header())
    table = b"".join(member.entry(step * index) for index in range(50_000))
    write_archive_of(path, body, table, 50_000)


def _write_config(path, config):
    return write_archive(path, weights_bytes(name=None), config)


def config_of_half_a_gigabyte(path):
    """A config of 500 MB, stored."""
    _write_config(path, b" " * 500_000_000)


def deflated_config_of_half_a_gigabyte(path):
    """A config of 500 MB, deflated to 500 KB."""
    weights = stored(WEIGHTS, weights_bytes(name=None))
    write_members(path, weights, zeros("config.json", 500))


def config_nested_without_end(path):
    """A config of a million nested lists."""
    _write_config(path, b"[" * 10**6 + b"]" * 10**6)


def config_of_many_objects(path):
    """A config as large as the limit allows, of lists, which take the most memory."""
    _write_config(path, b"[" + b"[[]]," * (2 * 2**20 - 100) + b"[]]")


def config_of_many_layers(path):
    """A config as large as the limit allows, in which every layer has its own class."""
    layer = b'{"class_name":"' + b"Aa" * 46 + b'%08d","config":{"name":"a"}},'
    count = 10 * 2**20 // (len(layer) + 5)
    layers = b"".join(layer % index for index in range(count)) + b"0"
    _write_config(path, b'{"config":{"layers":[' + layers + b"]}}")


BOMBS = {
    function.__name__: function
    for function in (
        groups_in_one_group,
        groups_in_a_tree,
        links_to_one_group,
        kernels_by_the_thousand,
        ten_thousand_layers,
        groups_in_groups,
        long_text,
        long_fixed_text,
        thousands_of_attributes,
        chunk_of_more_than_it_holds,
        chunk_of_a_gigabyte,
        array_of_two_gigabytes,
        chunks_by_the_hundred_thousand,
        zip_of_eight_gigabytes,
        zip_that_inflates_well,
        zip_in_a_zip,
        zip_of_many_members,
        config_of_half_a_gigabyte,
        deflated_config_of_half_a_gigabyte,
        config_nested_without_end,
        config_of_many_objects,
        config_of_many_layers,
    )
}

# Arguments: a memory limit in bytes or 0, a good file, and the bombs. Reading the good
# file loads all modules, so that the limit applies to the memory that bombs add.
READ = """
import json, resource, sys
from keras_wm.errors import ModelFileError
from keras_wm.files import open_model_file

def seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

def read(path):
    start = seconds()
    try:
        with open_model_file(path) as model_file:
            for kernel in model_file.kernels[:10]:
                kernel.read()
            outcome = f"{len(model_file.kernels)} kernels"
    except ModelFileError as error:
        outcome = f"{error} {error.__cause__!r}".removeprefix(f"{path}: ")
    with open("/proc/self/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM")).split()[1]
    return {
        "outcome": outcome,
        "megabytes": int(peak) / 1024,
        "seconds": seconds() - start,
    }

bound, good, *paths = sys.argv[1:]
read(good)
if int(bound):
    with open("/proc/self/statm") as sizes:
        used = int(sizes.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(bound),) * 2)
print(json.dumps([read(path) for path in paths]))
"""


def read_in_a_process(paths, bound=0):
    """Reads files in a new process and reports on each.

    Args:
        paths: Paths of the files.
        bound: Bytes of memory that the process can use in addition to those for a
            small good file, or 0 for no limit.

    Returns:
        For each file a dictionary of the outcome, the peak of the process's memory so
        far in MB, and the processor time in seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        good = write_archive(Path(folder) / "good.keras")
        run = subprocess.run(
            [sys.executable, "-c", READ, str(bound), str(good), *map(str, paths)],
            capture_output=True,
            text=True,
        )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bomb"
        for name, write in BOMBS.items():
            write(path)
            size = path.stat().st_size / 1e6
            (result,) = read_in_a_process([path])
            path.unlink()
            print(
                f"{name:36} {size:6.1f} MB: {result['megabytes']:5.0f} MB "
                f"{result['seconds']:6.2f} s  {result['outcome'][:90]}"
            )


if __name__ == "__main__":
    main()
