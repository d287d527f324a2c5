"""Alignment of a suspect model with the reference model.

The modules, in the order of their use:

- `reference` reads the reference model. `tracing` follows its channels from layer to
  layer and gives its `channel_graph`.
- `held_out` finds the kernels of a marked reference that must not be compared.
- `layer_matching` finds the suspect's weights that correspond to the reference's.
- `aligner` finds out how the suspect's channels were permuted, scaled and sign-flipped,
  and undoes it. `correspondence` holds what is known so far, `similarity` compares
  channels.
- `filter_assignment` needs no reference model: it only tries to undo changes of a
  kernel's filters, with the key.
"""
