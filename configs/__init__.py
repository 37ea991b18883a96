"""Typed settings, presets (YAML) and prompt templates. Imports nothing heavy."""

from configs.errors import ConfigError, DataError, LlumiError, MissingInput, UsageError
from configs.load import load
from configs.settings import Settings

__all__ = ["ConfigError", "DataError", "LlumiError", "MissingInput", "Settings", "UsageError", "load"]
