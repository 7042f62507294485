"""What the owner of an image says against its use: X-Robots-Tag, TDMRep, Content-Usage.

X-Robots-Tag has these forms, one or more of them in one or more headers:

    X-Robots-Tag: noai, noimageai                        for everyone
    X-Robots-Tag: straightshot: noindex, noai            for a named agent
    X-Robots-Tag: otherbot: nofollow, straightshot: noai  for several
    X-Robots-Tag: unavailable_after: Friday, 25-Jun-10 15:00:00 GMT

An agent's name holds until the next one; a proxy may have joined several headers to one.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from components.fetching.rules import FetchRules

EVERYONE = "*"
UNAVAILABLE_AFTER = "unavailable_after"
# Directives with a value after a colon, which looks like an agent's name with a directive.
VALUED = (UNAVAILABLE_AFTER, "max-snippet", "max-image-preview", "max-video-preview")
RESERVED = "1"
TRAINING = ("train-ai", "ai-train", "train-genai")  # usages that training a model is
PATTERN_PARTS = re.compile(r"[*]|[^*]+")


@dataclass(frozen=True)
class RobotsTag:
    """One directive of X-Robots-Tag, in lower case, for one agent or everyone (*)."""

    agent: str
    directive: str
    value: str = ""


def opted_out(headers: Mapping[str, str], rules: FetchRules, now: datetime | None = None) -> str | None:
    """By which header of a response its image is reserved, in words; None where it is not.

    headers: with `getall(name, default)` for those that come several times, as aiohttp has them.
    """
    for tag in robots_tags(_values(headers, "X-Robots-Tag")):
        if tag.agent != EVERYONE and tag.agent not in rules.agents:
            continue
        expired = tag.directive == UNAVAILABLE_AFTER and _is_past(tag.value, now or datetime.now(UTC))
        if tag.directive in rules.opt_out_directives or (expired and "noindex" in rules.opt_out_directives):
            return f"X-Robots-Tag: {'' if tag.agent == EVERYONE else tag.agent + ': '}{tag.directive}"
    if rules.tdmrep and any(value.strip() == RESERVED for value in _values(headers, "tdm-reservation")):
        return "tdm-reservation: 1"
    for value in _values(headers, "Content-Usage"):  # IETF AI preferences: train-ai=n
        for usage in value.lower().split(","):
            name, _, answer = usage.split(";")[0].partition("=")
            if name.strip() in TRAINING and answer.strip() in ("n", "no"):
                return f"Content-Usage: {usage.strip()}"
    return None


def robots_tags(values: Iterable[str]) -> Iterator[RobotsTag]:
    """The directives in the values of all X-Robots-Tag headers of a response."""
    for value in values:
        agent = EVERYONE
        pieces = value.split(",")
        while pieces:
            piece = pieces.pop(0).strip()
            name, colon, rest = piece.partition(":")
            if colon and name.strip().lower() not in VALUED:
                agent, piece = name.strip().lower() or EVERYONE, rest.strip()
                name, colon, rest = piece.partition(":")
            directive = name.strip().lower()
            if directive == UNAVAILABLE_AFTER and pieces and _date(rest) is None:
                rest = f"{rest},{pieces.pop(0)}"  # the comma of "Friday, 25-Jun-10"
            if directive:
                yield RobotsTag(agent, directive, rest.strip())


def _values(headers: Mapping[str, str], name: str) -> Sequence[str]:
    getall = getattr(headers, "getall", None)
    if getall is not None:
        return tuple(getall(name, ()))
    return (headers[name],) if name in headers else ()


def _is_past(text: str, now: datetime) -> bool:
    date = _date(text)
    return date is not None and date <= now


def _date(text: str) -> datetime | None:
    """RFC 822, RFC 850 or ISO 8601; in UTC where it names no zone."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = parse(text.strip())
        except (ValueError, TypeError, IndexError):
            continue
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return None


@dataclass(frozen=True)
class Reservations:
    """An origin's /.well-known/tdmrep.json: the first rule whose location matches counts (TDMRep, 2024)."""

    rules: tuple[tuple[re.Pattern[str], bool], ...] = ()

    def reserve(self, path: str) -> bool:
        """Whether the resource at this path (with its query) is reserved."""
        return next((reserved for pattern, reserved in self.rules if pattern.match(path)), False)


def read_tdmrep(content: bytes) -> Reservations:
    """The rules of a tdmrep.json; what in it is not as TDMRep has it says nothing."""
    try:
        entries: Any = json.loads(content)
    except (ValueError, RecursionError):
        return Reservations()
    entries = entries if isinstance(entries, list) else [entries]
    rules = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(location := entry.get("location"), str):
            continue
        reservation = str(entry.get("tdm-reservation", "")).strip()
        if reservation in ("0", "1"):
            rules.append((_pattern(location), reservation == RESERVED))
    return Reservations(tuple(rules))


def _pattern(location: str) -> re.Pattern[str]:
    """A location as robots.txt writes paths: `*` is any characters, `$` at its end the end of the path."""
    body, end = (location[:-1], "$") if location.endswith("$") else (location, "")
    parts = (".*" if part == "*" else re.escape(part) for part in PATTERN_PARTS.findall(body))
    return re.compile("".join(parts) + end, re.DOTALL)
