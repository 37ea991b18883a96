"""Identifying numbers in a text: addresses, IP addresses, phone numbers, long runs of digits.

What tells a phone number from a price, a date, a dose or a year lies around it, which
needs looking back and ahead: Python's ``re``, which only the few rows with a candidate
see. ``CANDIDATE`` says which those are, in RE2's and Rust's dialect, without the context;
a text that it is not found in is one that ``replace`` leaves alone.
"""

import re
from collections.abc import Callable, Collection

from pipelines.corpus.crisis import digits

_SUFFIX = (
    r"street|str|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr|court|ct|place|pl|terrace|parkway|pkwy|highway"
    r"|hwy|square|sq|circle|cir|crescent|cres|close|way|trail|row|gardens|grove|mews|alley"
)
_PLAIN_SUFFIX = r"street|avenue|road|boulevard|lane|ave|blvd"
_NUMBERED = r"(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\.?[ ]"
_NO_STREET = (
    r"(?:the|a|an|my|your|this|that|of|in|on|at|down|up|miles?|minutes?|hours?|days?|blocks?|years?|people|or|and|more|to|from"
    r"|am|pm|km|kms|feet|ft|mg|times|for|with|is|are|was|weeks?|months?|houses?|cars?|long|busy|different|single|main"
    r" streets?)"
)
ADDRESS = re.compile(
    r"(?<![\w$€£.,/#-])(?:[0-9]{1,5}[A-Za-z]?(?:-[0-9]{1,4})?[ ]"
    rf"(?:{_NUMBERED})?(?:[A-Z][A-Za-z'\u2019.-]*[ ]|[0-9]{{1,3}}(?:st|nd|rd|th)[ ]){{1,3}}(?i:(?:{_SUFFIX})\b)"
    rf"|[0-9]{{2,5}}[A-Za-z]?[ ](?!{_NO_STREET}\b)[a-z'\u2019]{{3,}}[ ]"
    rf"(?:(?!{_NO_STREET}\b)[a-z'\u2019]{{3,}}[ ])?(?:{_PLAIN_SUFFIX})\b)"
    r"\.?(?:,?[ ](?i:apt|apartment|unit|suite|ste|flat|floor|#)\.?[ ]?#?[0-9A-Za-z-]{1,5}\b)?"
    r"(?:,[ ][A-Z][A-Za-z.'\u2019-]+(?:[ ][A-Z][A-Za-z.'\u2019-]+){0,2},?[ ][A-Z]{2}(?:[ ][0-9]{5}(?:-[0-9]{4})?)?\b)?"
    r"|(?<!\w)(?i:p\.?[ ]?o\.?[ ]?box)[ ]#?[0-9]{1,6}\b"
    r"|(?<![\w-])(?:[A-Z]{1,2}[0-9][A-Z0-9]?[ ][0-9][A-Z]{2})\b(?!-)"
)
"""House number and street (United States, Britain), with flat, town and code where they follow; a box; a postcode."""

IP = re.compile(
    r"(?<![\w.])(?<!version )(?<!release )"
    r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    r"(?![\w]|\.[0-9])"
    r"|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?![\w:])"
    r"|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6}(?![\w:])"
)
"""IPv4 and IPv6 addresses, the latter whole or with one ``::``."""

PHONE = re.compile(
    r"(?<![\w.,$€£#/:-])(?<![0-9] )(?:"
    r"(?:\+|00)[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]{1,5}\)?){2,5}"  # international
    r"|(?:1[ .-]?)?(?:\([0-9]{3}\)[ .-]?|[0-9]{3}[ ./-])[0-9]{3}[ .-]?[0-9]{4}"  # North America
    r"|(?:1[ .-]?)?[0-9]{3}[ ]?[0-9]{3}[.-][0-9]{4}"
    r"|\(?0[0-9]{1,4}\)?[ -]?[0-9]{3,4}[ -]?[0-9]{3,4}"  # national, leading zero
    r"|0[0-9](?:[ .-][0-9]{2}){4}"  # France
    r"|1?[2-9][0-9]{9}"  # a run of ten digits
    r")(?![\w/%€£$-]|[.,][0-9])"
)
LOCAL_PHONE = re.compile(
    r"(?i:\b(?:call|text|phone|cell|mobile|number|tel|dial|reach|whatsapp|ring)\b[^0-9\n]{0,25})(?<![\w$€£/+-])"
    r"([0-9]{3}[ .-]?[0-9]{4})(?![\w/%-]|[ .,][0-9])"
)
"""Seven digits are a phone number only where the words before say so."""

NUMBER = re.compile(
    r"(?<![\w.,$€£-])(?:"
    r"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}"  # payment cards
    r"|[0-9]{3}-[0-9]{2}-[0-9]{4}"  # social security
    r"|[A-Z]{2}[0-9]{2}(?:[ ]?[A-Z0-9]{4}){3,7}(?:[ ]?[A-Z0-9]{1,3})?"  # IBAN
    r"|(?![0-9]+0{6}\b)[0-9]{8,}"  # accounts, members, cases; round numbers are amounts
    r")(?![\w%€£$-]|[.,][0-9])"
)

CANDIDATE = {
    "ADDRESS": rf"[0-9][0-9A-Za-z-]* (?:[^ \n]+ ){{1,4}}(?i-u:{_SUFFIX})(?-u:\b)"
    r"|(?i-u:box )#?[0-9]|[0-9][A-Z0-9]? [0-9][A-Z]",
    "IP": r"[0-9]\.[0-9]+\.[0-9]+\.[0-9]|[0-9A-Fa-f]:[0-9A-Fa-f:]*:[0-9A-Fa-f]",
    "PHONE": r"[0-9](?:[ .()/-]{0,3}[0-9]){6}",
    "NUMBER": r"[0-9](?:[ .()-]{0,3}[0-9]){7}|[A-Z][0-9][0-9] ?[A-Z0-9]",
}
"""Where ``replace`` may find something, by kind."""


def replace(text: str, kinds: Collection[str], kept: Collection[str]) -> str:
    """``text`` with the numbers of these kinds as placeholders; phone numbers whose digits are ``kept`` stay."""

    def unless_kept(placeholder: str) -> Callable[[re.Match[str]], str]:
        return lambda match: match.group() if stays(digits(match.group())) else placeholder

    def stays(number: str) -> bool:
        return number in kept or len(number) < 7

    if "ADDRESS" in kinds:
        text = ADDRESS.sub("[ADDRESS]", text)
    if "IP" in kinds:
        text = IP.sub("[IP]", text)
    if "PHONE" in kinds:
        text = PHONE.sub(unless_kept("[PHONE]"), text)
        text = LOCAL_PHONE.sub(
            lambda m: m.group() if stays(digits(m[1])) else m.group()[: -len(m[1])] + "[PHONE]", text
        )
    if "NUMBER" in kinds:
        text = NUMBER.sub(unless_kept("[NUMBER]"), text)
    return text
