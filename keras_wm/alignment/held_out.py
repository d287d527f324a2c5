"""The kernels of a marked reference that must not determine an alignment.

A score is the product of the suspect's kernel with the key's arrays for the slot and
the shape of that kernel. It is exactly normal if the order and signs of the kernel's
channels do not depend on *these* arrays. Three parts of the owner's marked network can
depend on them:

- The tested kernel itself. It is held out whether it carries the mark or not.
- Other kernels that were marked with the same arrays, because they have the same shape
  and were marked in the same slot. They are held out too. In a suspect whose layers
  resemble each other, arranging one of them like a mark would arrange the other one as
  well.
- All other weights, since they were trained beside the mark. At the default margin,
  that leaves no measurable trace in the p-values. A mark of several times that margin
  in a small kernel can change its neighbours so much that their channels are confused,
  and the confusion knows the key (`benchmarks/aligned_false_alarms.py --strength 3.5`).
  Only a checkpoint from before the mark rules this out.

A kernel that was marked in another slot, or has another shape, carries other arrays,
which are independent of those that are tested. It is used: without it, a network in
which every kernel carries the mark could not be aligned at all, because biases and
normalizations have only one value per channel.

Which kernels are held out depends on the reference and the key only, not on the
suspect. The decision uses the key, but a kernel on which it could go either way carries
so little of the mark that an alignment with it is as good as one without it.
"""

from __future__ import annotations

from math import log10

from keras_wm.alignment.channel_graph import WeightName
from keras_wm.alignment.reference import Reference
from keras_wm.scheme.capacity import flat_shape
from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey

# A kernel of the reference carries the mark if its p-value is below this. Marks of the
# usual strength are far below it, also in small kernels. One of 1,000 unmarked kernels
# is held out by chance. These must be few, because a chain of layers cannot be aligned
# without the kernels next to the tested one.
_MARKED = 1e-3


def held_out_kernels(
    reference: Reference, key: WatermarkKey
) -> dict[WeightName, frozenset[WeightName]]:
    """Returns the kernels that must not determine the alignment of each kernel.

    Args:
        reference: The owner's marked network.
        key: The key in the slot that is tested.

    Returns:
        For each kernel that can hold the key's message, itself and the kernels that
        carry the mark of the same arrays.
    """
    arrays: dict[WeightName, tuple[int, ...]] = {}
    marked: set[WeightName] = set()
    for kernel in reference.kernels:
        name = (kernel.layer, kernel.variable)
        try:
            detection = detect(reference.values[name], key)
        except ValueError:
            continue  # It cannot hold the message.
        size, count = flat_shape(kernel.shape)
        # An explicit key has the same arrays for all kernels of the same size M.
        arrays[name] = (size,) if key.projection == "explicit" else (size, count)
        if detection.log10_p < log10(_MARKED):
            marked.add(name)
    return {
        name: frozenset({name, *(mark for mark in marked if arrays[mark] == own)})
        for name, own in arrays.items()
    }
