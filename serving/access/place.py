"""Where the keys lie, under one configuration."""

from pathlib import Path

from configs.serving import ServingSettings
from configs.settings import Settings

KEYS = Path("serving") / "keys.json"
"""Under the output."""


def keys_file(settings: Settings) -> Path:
    """The file of API keys, as the ingress' nodes see it."""
    named = settings.serving.access.keys_file
    return Path(named).expanduser() if named else Path(settings.output).expanduser().absolute() / KEYS


def with_places(settings: Settings) -> ServingSettings:
    """The service's settings with the default place of the keys spelled out: a replica knows no output."""
    access = settings.serving.access.model_copy(update={"keys_file": str(keys_file(settings))})
    return settings.serving.model_copy(update={"access": access})
