"""The owner's commands: keygen, publish and derive."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from keras_wm.cli import options
from keras_wm.cli.app import silent_import
from keras_wm.cli.inputs import check_unused, load_key, new_passphrase
from keras_wm.cli.options import argument, flag, option
from keras_wm.scheme.capacity import USUAL_BITS


def keygen(
    path: Annotated[Path, argument("Output path of the key file.", "FILE")],
    owner: Annotated[str, option("Name of the owner.", "NAME")],
    bits: Annotated[int, option("Number of bits of the message.", "N")] = USUAL_BITS,
    projection: Annotated[
        str, option("Kind of projection.", "random|direct|diff")
    ] = "random",
    filters: Annotated[str, option("Kind of filter weights.", "keyed|mean")] = "keyed",
    encrypt: options.Encrypt = False,
) -> None:
    """Make a key. Keep it secret and back it up; publish its commitment."""
    from keras_wm.scheme.key import WatermarkKey

    key = WatermarkKey.generate(owner, bits, projection, filters)  # type: ignore[arg-type]
    check_unused(path)
    key.save(path, new_passphrase() if encrypt else None)
    typer.echo(f"{path}: {key.bits} bits for {key.owner!r}, readable by you alone.")
    typer.echo(f"commitment: {key.commitment}")
    typer.echo(
        "Publish the commitment with a date before you publish the model. Never "
        "publish the key file."
    )


def derive(
    key: Annotated[Path, argument("The owner's key file.", "KEY")],
    recipient: Annotated[str, argument("Name of the recipient.", "NAME")],
    path: Annotated[Path, argument("Output path of the recipient's key file.", "FILE")],
    encrypt: options.Encrypt = False,
) -> None:
    """Make the key that marks one recipient's copy, from the owner's key."""
    derived = load_key(key).for_recipient(recipient)
    check_unused(path)
    derived.save(path, new_passphrase() if encrypt else None)
    typer.echo(f"{path}: marks the copy for {recipient!r}, readable by you alone.")
    typer.echo(f"commitment: {derived.commitment}")


def publish(
    source: Annotated[
        Path, argument("Your marked model file, which is loaded with Keras.", "SOURCE")
    ],
    target: Annotated[Path, argument("Output path of the copy.", "TARGET")],
    keep_optimizer: Annotated[
        bool, flag("--keep-optimizer", "Keep the optimizer's state.")
    ] = False,
    force: Annotated[bool, flag("--force", "Replace the target if it exists.")] = False,
) -> None:
    """Save a copy of a marked model that contains no keras_wm metadata.

    To commit to the copy before you release it, run `keras-wm claim` on it.
    """
    if not source.is_file():
        raise FileNotFoundError(f"There is no file {str(source)!r}.")
    if not force:
        check_unused(target, "Choose another name, or replace it with --force.")
    with silent_import():
        import keras

    # This import also lets Keras load models that contain the regularizer.
    from keras_wm.embedding.publishing import publish as publish_model

    with warnings.catch_warnings():
        # The mark is inactive without its key, which does not matter for a copy.
        warnings.simplefilter("ignore")
        model = keras.saving.load_model(source)
    publish_model(model, target, include_optimizer=keep_optimizer, overwrite=force)
    typer.echo(f"{target}: contains no keras_wm metadata, weights unchanged.")
