"""Marking with PyTorch's DistributedDataParallel, in two processes."""

import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

pytestmark = [
    pytest.mark.backends,
    pytest.mark.study,
    pytest.mark.skipif(
        keras.backend.backend() != "torch", reason="PyTorch's own distribution"
    ),
]

# The loop of Keras's guide to distributed training with PyTorch, with the penalty.
LOOP = """
    import json, sys
    import keras, torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    import keras_wm
    from keras_wm import WatermarkRegularizer
    from tests.conftest import fixed_key
    from tests.models import data, dense_model, expected_ber, kernel_of

    rank, meeting_point = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=2
    )
    key = fixed_key()
    tensors = [torch.as_tensor(array) for array in data()]

    def trained(penalty_of, count):
        # Each process gets its share of each batch of 8.
        shares = [part.reshape(8, count, -1, *part.shape[1:]) for part in tensors]
        x, y = (part[:, rank] for part in shares)
        model = dense_model(WatermarkRegularizer(key, strength=3e-3), compiled=False)
        before = expected_ber(kernel_of(model), key)
        parallel = DistributedDataParallel(model) if count == 2 else model
        optimizer = torch.optim.SGD(parallel.parameters(), 0.05, momentum=0.9)
        losses, penalties = [], []
        for _ in range(4):
            for inputs, labels in zip(x, y):
                loss = torch.nn.functional.cross_entropy(parallel(inputs), labels)
                penalty = penalty_of(model)
                optimizer.zero_grad()
                (loss + penalty).backward()
                optimizer.step()
                loss = loss.detach()
                if count == 2:
                    dist.all_reduce(loss)
                losses.append(float(loss) / count)
                penalties.append(float(penalty))
        return {
            "ber": [before, expected_ber(kernel_of(model), key)],
            "loss": losses,
            "penalty": penalties,
            "kernel": kernel_of(model).tolist(),
        }

    def sum_of_losses(model):
        return sum(model.losses)

    answers = {
        "losses": trained(sum_of_losses, 2), "penalty": trained(keras_wm.penalty, 2)
    }
    if rank == 0:
        answers["one"] = trained(sum_of_losses, 1)
    print("ANSWERS", json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The answers of both processes; the first one also trains without the other."""
    meeting_point = tmp_path_factory.mktemp("meeting") / "point"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(LOOP), str(rank), meeting_point],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    outputs = [child.communicate() for child in children]
    for child, (_, errors) in zip(children, outputs, strict=True):
        assert child.returncode == 0, errors[-3000:]
    return [json.loads(output.split("ANSWERS", 1)[1]) for output, _ in outputs]


@pytest.mark.parametrize("route", ["losses", "penalty"])
def test_two_processes_train_the_mark_as_one_does(answers, route):
    first, second = (answer[route] for answer in answers)
    one = answers[0]["one"]
    assert first["kernel"] == second["kernel"]
    for value in ("loss", "penalty", "kernel"):
        np.testing.assert_allclose(first[value], one[value], rtol=1e-5, atol=1e-5)
    before, after = first["ber"]
    assert before > 0.3
    assert after == 0
