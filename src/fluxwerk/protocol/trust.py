"""Decide which URL may receive the key, be polled or be downloaded, read base URLs, and redact URLs.

A response names the URLs of the next requests, so each of them is checked here before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from fluxwerk.errors import Fault, InvalidUsageError, UntrustedURLError

HOME = ".bfl.ai"
REGIONS = {
    "global": "https://api.bfl.ai",
    "eu": "https://api.eu.bfl.ai",
    "us": "https://api.us.bfl.ai",
}
PORTS = {"http": 80, "https": 443}
WEBSITES = frozenset({"bfl.ai", "www.bfl.ai", "docs.bfl.ai", "dashboard.bfl.ai", "playground.bfl.ai", "help.bfl.ai"})
FORM = "a base URL has the form https://api.bfl.ai or http://127.0.0.1:8000"
LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")
USER = re.compile(r"//[^/@\s]*@")
LONGEST_SHOWN = 100
REDIRECTED = frozenset({301, 302, 303, 307, 308})
WRONG_ADDRESS = frozenset({404, 405})
# White space, control characters and backslashes are where URL parsers disagree about the host.
DISPUTED = re.compile(r"[\x00-\x20\x7f\\]")
RESIDENCE = re.compile(r"(?:^|[.-])(eu|us)\d*(?=[.-])")
QUERY = re.compile(r"(?<=[?])[^\s\"<>]+")
# No message repeats more characters than this of what came from outside.
LONGEST_QUOTE = 200
# A host with any other character is read in one way here, in another by a proxy, and not at all by the HTTP library.
PLAIN_HOST = re.compile(r"([a-z0-9_:-]{1,63}\.)*[a-z0-9_:-]{1,63}\.?")


def base_url(region: str | None, given: str | None) -> str:
    """Choose the address of the service: `given`, or a region's; raises `InvalidUsageError` for anything else.

    A host without a scheme is taken as http on this machine, and refused elsewhere.
    """
    if given and region:
        raise InvalidUsageError("Give either a region or a base URL, not both.")
    if not given:
        if (region or "global") not in REGIONS:
            raise InvalidUsageError(f"There is no region {region!r}; the regions are {', '.join(REGIONS)}.")
        return REGIONS[region or "global"]
    address = _with_scheme(given.strip()).rstrip("/")
    parts = _split(address)
    if parts is None:
        raise InvalidUsageError(f"{_shown(given)} is not a base URL; {FORM}.")
    mistake = _mistake(parts)
    if mistake:
        raise InvalidUsageError(f"{_shown(given)} is not a base URL: {mistake}.")
    return address


def explain_refusal(status: int, url: str, location: str = "") -> str:
    """Say what was asked and which mistake in the base URL is likely, where a status suggests one, or nothing."""
    if status in REDIRECTED:
        target = _split(location)
        where = f" to {target.scheme}://{target.netloc}" if target else ""
        return (
            f"{redact(url)} redirects{where}, and a key follows no redirect. "
            "If the target is your service, give its address as the base URL."
        )
    if status in WRONG_ADDRESS:
        return (
            f"{redact(url)} was asked. Check the base URL: it is the address of a FLUX API without any path of it, "
            "such as https://api.bfl.ai. A server may also lack this model."
        )
    return ""


def fallbacks(base: str) -> tuple[str, ...]:
    """Return the regions to which a submit may fail over when `base` cannot be reached: none if a region is pinned."""
    return tuple(other for other in REGIONS.values() if other != base) if base == REGIONS["global"] else ()


def residence(url: str) -> str | None:
    """Return the region to which the host of this URL keeps its data, "eu" or "us", or `None` if it has none."""
    origin = origin_of(url)
    if origin is None or not is_home(origin):
        return None
    found = RESIDENCE.search(origin.host)
    return found[1] if found else None


def may_carry_key(url: str, base: str) -> bool:
    """Whether the account's key may be sent to this URL: the base's origin, and BFL's hosts when the base is BFL's."""
    origin, home = origin_of(url), origin_of(base)
    if origin is None or home is None:
        return False
    return origin == home or (is_home(origin) and is_home(home))


def check_polling(url: str, base: str) -> str:
    """Return the URL if it may be polled; raises `UntrustedURLError` otherwise."""
    if not may_carry_key(url, base):
        raise UntrustedURLError(
            f"The service named a polling URL that is not its own ({quote(url)}); it was not asked."
        )
    return _check_residence(url, base)


def check_delivery(url: str, base: str, hosts: Collection[str] = ()) -> str:
    """Return the URL if an image may be fetched from it: any https host, or the base's own origin.

    A base of plain http may also send its images by plain http from `hosts`.
    """
    origin = origin_of(url)
    if origin is None or not (origin.scheme == "https" or origin == origin_of(base) or _is_told(url, base, hosts)):
        raise UntrustedURLError(f"The service named a delivery URL that may not be followed ({quote(url)}).")
    return _check_residence(url, base)


def delivery_hosts(given: Iterable[str], base: str) -> frozenset[str]:
    """Read the hosts that may deliver images by plain http; raises `InvalidUsageError`.

    Only a base of plain http has such hosts: whoever asked for https gets all of it by https.
    """
    hosts = frozenset(host.lower() for host in given)
    wrong = next((host for host in sorted(hosts) if not _is_host(host)), None)
    if wrong is not None:
        hint = "such as minio.internal or minio.internal:9000"
        raise InvalidUsageError("", faults=[Fault("delivery_hosts", wrong, "must be a host, or a host and port", hint)])
    if hosts and not base.startswith("http://"):
        raise InvalidUsageError(
            "",
            faults=[
                Fault(
                    "delivery_hosts",
                    ", ".join(sorted(hosts)),
                    f"needs a base URL of plain http, and this one is {base}",
                    "leave it out: every https host may deliver images",
                )
            ],
        )
    return hosts


def redact(text: str) -> str:
    """Blank the query of every URL in a text: a signed query gives access to the image for ten minutes."""
    return QUERY.sub("…", text)


def quote(text: str) -> str:
    """Make what came from outside fit for a message: one line, no query of a URL, at most 200 characters."""
    flat = redact(" ".join(text.split()))
    return flat if len(flat) <= LONGEST_QUOTE else f"{flat[: LONGEST_QUOTE - 1]}…"


def _is_told(url: str, base: str, hosts: Collection[str]) -> bool:
    parts = _split(url) if hosts and base.startswith("http://") else None
    return parts is not None and (parts.hostname in hosts or parts.netloc.lower() in hosts)


def _is_host(text: str) -> bool:
    parts = _split(f"http://{text}")
    return parts is not None and parts.netloc == text and parts.port != 0


def _check_residence(url: str, base: str) -> str:
    pinned = residence(base)
    if pinned and residence(url) != pinned:
        raise UntrustedURLError(
            f"The region is pinned to {pinned}, but the service named a URL that is not bound to it ({quote(url)}). "
            "It was not followed; the global region would follow it."
        )
    return url


def _split(url: str) -> SplitResult | None:
    if DISPUTED.search(url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    good = parts.scheme in PORTS and parts.username is None and parts.password is None
    return parts if good and PLAIN_HOST.fullmatch(parts.hostname or "") else None


class Origin(NamedTuple):
    """Where a URL leads: its scheme, host and port."""

    scheme: str
    host: str
    port: int


# Every call asks for the base's origin and for that of the URL which the last answer named.
@lru_cache(maxsize=512)
def origin_of(url: str) -> Origin | None:
    """Say where a URL leads; `None` if it cannot be read or names no plain http(s) host."""
    parts = _split(url)
    if parts is None:
        return None
    return Origin(parts.scheme, parts.hostname or "", PORTS[parts.scheme] if parts.port is None else parts.port)


def is_home(origin: Origin) -> bool:
    """Whether this is one of BFL's own hosts."""
    return origin.scheme == "https" and origin.port == PORTS["https"] and f".{origin.host}".endswith(HOME)


def _with_scheme(address: str) -> str:
    """Add http:// to a bare host of this machine; raises `InvalidUsageError` for any other bare host."""
    if "://" in address:
        return address
    parts = _split(f"http://{address}")
    if parts is None or parts.hostname in PORTS:
        return address
    if LOOPBACK.fullmatch(parts.hostname or ""):
        return f"http://{address}"
    right = f"https://{parts.netloc}"
    home = origin_of(right)
    own = "" if home and is_home(home) else f", or http://{parts.netloc} within your own network"
    raise InvalidUsageError(f"{_shown(address)} is not a base URL: the scheme is missing. Write {right}{own}.")


def _mistake(parts: SplitResult) -> str:
    """Name the likely mistake in an address that can be read, or nothing."""
    origin, host = f"{parts.scheme}://{parts.netloc}", parts.hostname or ""
    before, version, _ = f"{parts.path}/".partition("/v1/")
    if version:
        return f"the client adds /v1 and the model's path itself. Write {origin}{before}"
    if parts.query or parts.fragment:
        return f"it has no query and no fragment. Write {origin}{parts.path.rstrip('/')}"
    if host in WEBSITES:
        return f"{host} is a website of BFL, not its API. Write {REGIONS['global']}"
    if parts.scheme == "http" and f".{host}".endswith(HOME):
        return f"plain http would show the key to the network. Write https://{parts.netloc}"
    return ""


def _shown(given: str) -> str:
    """Quote an address without what is secret in it: a password, or the query."""
    text = redact(USER.sub("//…@", given))
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…")
