"""Settings of the data cards: what a reader of a published output must be told and no stage can measure."""

from configs.base import Section


class CardSettings(Section):
    """What the data cards say about source, terms and contact; changing it makes no stage run again."""

    source: str = ""
    """Where the dumps come from and when they were taken, for example an archive's name, address and date."""
    licence: str = ""
    """Licence under which the output may be passed on, for example ``CC-BY-4.0``; empty: not to be passed on."""
    contact: str = ""
    """Where people ask to have what they wrote removed: an address that is read."""
