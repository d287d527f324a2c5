"""Results that the papers report, to compare with ours.

Uchida et al., Embedding Watermarks into Deep Neural Networks, ICMR 2017 (arXiv
1701.04082); Nagai et al., Digital Watermarking for Deep Neural Networks, IJMIR 2018
(arXiv 1802.02601). WRN-10-4 on CIFAR-10, 200 epochs, one run each. The test error is
the best of all epochs, and all bits of every message are 1.
"""

from __future__ import annotations

from typing import NamedTuple


class PublishedResult(NamedTuple):
    """One network in a table of the papers; `None` for a value that is not reported.

    Attributes:
        test_error: Test error in percent.
        embedding_loss: E_R, mean per bit.
        ber: Bit error rate.
    """

    test_error: float | None = None
    embedding_loss: float | None = None
    ber: float | None = None


def _by_bits_and_group(
    rows: dict[int, list[tuple[float, float, float]]],
) -> dict[tuple[int, int], PublishedResult]:
    """Returns results by number of bits and group, from those of groups 2, 3 and 4."""
    return {
        (bits, group): PublishedResult(*result)
        for bits, results in rows.items()
        for group, result in enumerate(results, start=2)
    }


# ICMR table 4, IJMIR table 5.
EMBEDDING = {
    "unmarked": PublishedResult(8.04),
    "direct": PublishedResult(8.21, 1.24e-1),
    "diff": PublishedResult(8.37, 6.20e-2),
    "random": PublishedResult(7.97, 4.76e-4),
}

# ICMR table 5, IJMIR table 6. The papers' other task is Caltech-101.
FINE_TUNING = {
    ("same task", "unmarked"): PublishedResult(7.66),
    ("same task", "random"): PublishedResult(7.70, 4.93e-4),
    ("other task", "unmarked"): PublishedResult(7.93),
    ("other task", "random"): PublishedResult(7.94, 4.83e-4),
}
DISTILLATION = {
    "unmarked": PublishedResult(7.86),
    "random": PublishedResult(7.75, 5.01e-4),
}

# ICMR table 6, IJMIR table 10, by number of bits and group.
CAPACITY = _by_bits_and_group(
    {
        256: [(7.97, 4.76e-4, 0.0), (7.98, 7.20e-4, 0.0), (7.92, 1.10e-2, 0.0)],
        512: [(8.47, 8.11e-4, 0.0), (8.22, 8.18e-4, 0.0), (7.84, 1.25e-2, 0.0)],
        1024: [(8.43, 6.74e-2, 0.0), (8.12, 1.53e-3, 0.0), (7.84, 1.53e-2, 0.0)],
        2048: [(8.17, 5.35e-1, 0.28), (8.93, 3.70e-2, 0.0), (7.75, 3.06e-2, 0.0)],
    }
)

# ICMR table 7, IJMIR table 4, by lambda: the results of the network, and half the
# squared change of the mean filter.
WITHOUT_TRAINING = {
    0.0: PublishedResult(8.04, 1.066, 0.531),
    1.0: PublishedResult(8.52, 0.609, 0.324),
    10.0: PublishedResult(10.57, 0.171, 0.0),
    100.0: PublishedResult(13.00, 0.029, 0.0),
}
WITHOUT_TRAINING_CHANGE = {0.0: 0.0, 1.0: 0.184, 10.0: 1.652, 100.0: 7.989}

# ICMR table 8, IJMIR table 7, by task and learning rate. Other task: a network marked
# on Caltech-101 is fine-tuned on CIFAR-10.
ATTACK_FINE_TUNING = {
    ("same task", 0.1): PublishedResult(7.69, 8.66e-4, 0.0),
    ("other task", 0.1): PublishedResult(7.88, 1.56e-2, 0.0),
}

# ICMR section 4.4.2, IJMIR section 5.3.2: the bit error rate, by the share of pruned
# weights.
ATTACK_PRUNING = {0.65: 0.0, 0.8: 2 / 256}

# IJMIR table 9: results of the first mark, by number of bits of the second mark and
# group.
ATTACK_OVERWRITING = _by_bits_and_group(
    {
        256: [(7.43, 1.67, 0.309), (7.36, 2.05e-1, 0.0859), (7.96, 4.98e-2, 0.0039)],
        512: [(7.29, 4.28, 0.410), (7.35, 1.13, 0.238), (7.92, 1.94e-1, 0.0664)],
        1024: [(7.58, 17.7, 0.511), (7.41, 3.76, 0.429), (7.96, 5.24e-1, 0.199)],
        2048: [(7.36, 1.04, 0.527), (7.61, 11.2, 0.507), (7.94, 1.40, 0.355)],
    }
)

# IJMIR table 8.
ATTACK_DISTILLATION = {"random": PublishedResult(8.40, None, 0.54)}
