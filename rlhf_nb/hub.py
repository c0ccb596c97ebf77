"""Models by name: a shipped one, a local folder or a hub name is loaded, or one sentence says why not."""

from pathlib import Path

from . import config

ASSETS = Path(__file__).parent / "toy" / "assets"


class ModelError(config.UserError, RuntimeError):
    """A model folder or hub name cannot be loaded; the message says what is wrong with it and what to do."""


def place(name):
    """Folder of a shipped model ("toy/pipeline"), or `name` itself: any local folder or hub name."""
    name = str(name)
    shipped = ASSETS / name.removeprefix("toy/")
    return str(shipped) if name.startswith("toy/") and shipped.is_dir() else name


def loading(cls, name, **options):
    """`cls.from_pretrained(name)`.

    Raises ModelError, which names the folder and the remedy, whatever went wrong.
    """
    try:
        return cls.from_pretrained(place(name), **options)
    except Exception as error:  # each library has its own exceptions for a missing, truncated or foreign file
        cause = (str(error).strip().splitlines() or [""])[0][:200]
        raise ModelError(
            f"{cls.__name__} cannot be loaded from {name!r} ({type(error).__name__}: {cause}); restore the "
            "folder (git checkout, or notebook A1_pretrain for the toy model) or give another folder or hub "
            "name"
        ) from error


def network(cls, name, **options):
    """`loading` of a network whose weights are all there; the libraries would leave a missing one random."""
    model, report = loading(cls, name, output_loading_info=True, **options)
    if lacking := len(report["missing_keys"]):
        part = options.get("subfolder", "model")
        raise ModelError(
            f"the {part} in {name!r} lacks {lacking} weights: restore the folder or give another folder or "
            "hub name"
        )
    return model


def quiet():
    """No bars or loading reports from the two libraries: errors still show."""
    import diffusers
    import transformers

    for library in (transformers, diffusers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
