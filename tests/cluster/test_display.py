"""What a run shows: moving bars on a terminal, plain lines elsewhere."""

import io
import logging

from rich.console import Console

from cluster.display import Outcome, showing


def shown(terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120)
    with showing(console, total=2) as display:
        display.begin("corpus")
        logging.getLogger("llumi.corpus").info("read %d files", 3, extra={"done": 3, "total": 10})
        display.bars.refresh()
        display.end(Outcome("corpus", "made", seconds=2.5))
        display.end(Outcome("pairs", "kept"))
    return text.getvalue()


def test_elsewhere_each_stage_and_what_it_says_is_a_plain_line():
    assert shown(terminal=False).splitlines() == ["corpus ...", "  read 3 files", "corpus: made in 2.5 s"]


def test_on_a_terminal_bars_show_the_stages_and_the_progress_inside_one():
    text = shown(terminal=True)
    assert "all stages" in text and "2/2" in text
    assert "read 3 files" in text and "3/10" in text


def test_the_loggers_are_as_before_afterwards():
    logger = logging.getLogger("llumi")
    before = (list(logger.handlers), logger.level, logger.propagate)
    shown(terminal=False)
    assert (list(logger.handlers), logger.level, logger.propagate) == before
