"""Which axes of which weights count the same channels of a network.

Reordering the channels of a layer, scaling them or turning their signs, and doing the
inverse where they are used, gives other weights for the same function. Both who hides a
mark in that way and who finds it again have to know where channels go.
"""

from keras_wm.channels.calls import Call, calls_in
from keras_wm.channels.graph import ChannelGraph, Channels, Member, Part, Segment
from keras_wm.channels.naming import by_variable
from keras_wm.channels.tracing import channel_graph

__all__ = [
    "Call",
    "ChannelGraph",
    "Channels",
    "Member",
    "Part",
    "Segment",
    "by_variable",
    "calls_in",
    "channel_graph",
]
