"""The commands of who owns a model: keys, publishing, recipients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_wm.cli.app import app, silent_import
from keras_wm.cli.inputs import load_key, new_passphrase
from keras_wm.scheme.capacity import USUAL_BITS


@app.command()
def keygen(
    path: Annotated[Path, typer.Argument(help="Where the key file goes.")],
    owner: Annotated[str, typer.Option(help="Whom the mark names.")],
    bits: Annotated[int, typer.Option(help="The length of the message.")] = USUAL_BITS,
    projection: Annotated[str, typer.Option(help="random, direct or diff.")] = "random",
    filters: Annotated[str, typer.Option(help="keyed or mean.")] = "keyed",
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Ask for a passphrase.")
    ] = False,
) -> None:
    """Make a key. Keep it secret and back it up; publish its commitment."""
    from keras_wm.scheme.key import WatermarkKey

    key = WatermarkKey.generate(owner, bits, projection, filters)  # type: ignore[arg-type]
    key.save(path, new_passphrase() if encrypt else None)
    typer.echo(f"{path}: {key.bits} bits for {key.owner!r}, readable by you alone.")
    typer.echo(f"commitment: {key.commitment}")
    typer.echo("Publish the commitment, dated, before the model; never the key file.")


@app.command()
def derive(
    key: Annotated[Path, typer.Argument(help="The owner's key file.")],
    recipient: Annotated[str, typer.Argument(help="Whom the copy is for.")],
    path: Annotated[Path, typer.Argument(help="Where the recipient's key file goes.")],
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Ask for a passphrase.")
    ] = False,
) -> None:
    """Make the key that marks one recipient's copy, from the owner's."""
    derived = load_key(key).for_recipient(recipient)
    derived.save(path, new_passphrase() if encrypt else None)
    typer.echo(f"{path}: marks the copy for {recipient!r}, readable by you alone.")
    typer.echo(f"commitment: {derived.commitment}")


@app.command()
def publish(
    source: Annotated[Path, typer.Argument(help="Your own marked model file.")],
    target: Annotated[Path, typer.Argument(help="Where the clean file goes.")],
    keep_optimizer: Annotated[
        bool, typer.Option("--keep-optimizer", help="Keep the optimizer's state.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the target if it exists.")
    ] = False,
) -> None:
    """Save a model without a trace of its mark's key. Loads your file with Keras."""
    import warnings

    with silent_import():
        import keras

    from keras_wm.embedding.publishing import publish as publish_model
    from keras_wm.embedding.regularizer import WatermarkRegularizer  # noqa: F401 (registers it)

    if not source.is_file():
        raise FileNotFoundError(f"There is no file {str(source)!r}.")
    with warnings.catch_warnings():
        # That the mark is inert without its key does not matter to a copy.
        warnings.simplefilter("ignore")
        model = keras.saving.load_model(source)
    publish_model(model, target, include_optimizer=keep_optimizer, overwrite=force)
    typer.echo(f"{target}: no trace of keras_wm, weights unchanged.")
