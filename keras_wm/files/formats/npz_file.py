"""Weights in NumPy's format, which Keras writes with `weights_format="npz"`.

Keras itself does not load that again, because each layer is an array of one
pickled object. Here the pickles are read without doing what they say.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from keras_wm.files.config.layer_names import name_in, nodes_in_config
from keras_wm.files.config.object_paths import is_state, layer_name
from keras_wm.files.contents import Contents, no_config
from keras_wm.files.formats.pickled_layer import arrays_of_layer
from keras_wm.files.kernels.stored import as_kernel
from keras_wm.files.storage.source import Source
from keras_wm.files.storage.zip_archive import ZIP_MAGIC, Archive

_ENDING = ".npy"
_ROOT = f"__root__{_ENDING}"


def recognise(
    source: Source, stack: ExitStack, config: Callable[[], Any] = no_config
) -> Contents | None:
    """The weights of a `.weights.npz` file, if it is one; see `hdf5_file.recognise`."""
    # Keras writes the model's own variables first, even if there are none.
    if not source.head.startswith(ZIP_MAGIC) or _ROOT.encode() not in source.head:
        return None
    members = Archive(source, stack)
    members.vet()
    steps = iter(range(source.limits.pickle_steps))
    owners = {
        "" if member == _ROOT else member.removesuffix(_ENDING): member
        for member in members.names
    }
    nodes = nodes_in_config(config(), owners)
    names = {owner: name_in(nodes.get(owner)) for owner in owners}
    weights = [
        as_kernel(array, layer_name(owner, names), variable)
        for owner, member in owners.items()
        if not is_state(owner)
        for variable, array in arrays_of_layer(
            members.open(member), member, steps
        ).items()
    ]
    return Contents("Keras weights (.weights.npz)", weights)
