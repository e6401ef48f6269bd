"""Which requests go through a proxy: those that HTTP_PROXY, HTTPS_PROXY and ALL_PROXY name, but loopback never."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fluxwerk.errors import ConnectionFailedError
from fluxwerk.protocol import trust

T = TypeVar("T")
KNOWN = frozenset({"http", "https", "socks5", "socks5h"})


def find_proxies() -> dict[str, str]:
    """Read the proxies of the environment or the operating system, by the scheme they serve: http, https or all."""
    from urllib.request import getproxies  # noqa: PLC0415  (only clients that connect pay for it)

    return {scheme: url for scheme, url in getproxies().items() if scheme in ("http", "https", "all") and url}


def is_direct(url: str, proxies: Mapping[str, str]) -> bool:
    """Whether a request to this URL meets no proxy: loopback, what NO_PROXY names, a scheme without a proxy."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return True
    host = (parts.hostname or "").rstrip(".")
    if not (proxies.get(parts.scheme) or proxies.get("all")):
        return True
    return is_loopback(host) or _is_exempt(host, parts.netloc)


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is this machine: localhost, 127.0.0.0/8 or ::1."""
    if f".{host.lower()}".endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def open_proxied(open_client: Callable[[Any], T], proxies: Mapping[str, str]) -> T:
    """Open a client of httpx2, which reads the proxies itself; raises `ConnectionFailedError` for what it cannot use.

    `open_client` is called with the module, which is slow to import and needed for proxies only.
    """
    import httpx2  # noqa: PLC0415

    try:
        return open_client(httpx2)
    except (ImportError, ValueError, OSError, httpx2.InvalidURL) as trouble:
        failure = open_failed(trouble, proxies)
    # Raised here, so that the library's exception, which holds the proxy's URL, does not hang on it.
    raise failure


def open_failed(trouble: Exception, proxies: Mapping[str, str]) -> ConnectionFailedError:
    """Turn what kept the proxy's connections from being opened into one sentence; nothing was sent.

    The URLs are not repeated, since they may hold a password.
    """
    if isinstance(trouble, ImportError):
        text = "The proxy is a SOCKS proxy, which needs one more package: pip install 'fluxwerk[socks]'"
    elif isinstance(trouble, OSError):
        text = f"The certificates cannot be read ({trouble.strerror or 'not PEM'}). Check SSL_CERT_FILE."
    else:
        named = {name.upper(): url.partition("://")[0] for name, url in proxies.items() if "://" in url}
        bad = [f"{name}_PROXY begins with {scheme}://" for name, scheme in named.items() if scheme not in KNOWN]
        text = (
            f"The proxy's URL cannot be used{f' ({trust.quote(bad[0])})' if bad else ''}. HTTP_PROXY, HTTPS_PROXY and "
            "ALL_PROXY look like http://host:port or socks5://host:port; unset what is not a proxy."
        )
    return ConnectionFailedError(text, permanent=True)


def _is_exempt(host: str, netloc: str) -> bool:
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415

    # With a port first: NO_PROXY may name one.
    if proxy_bypass(netloc.rpartition("@")[2]) or proxy_bypass(host):
        return True
    return any(_is_within(host, entry.strip()) for entry in getproxies().get("no", "").split(","))


def _is_within(host: str, entry: str) -> bool:
    """Whether an address lies in a network such as 10.0.0.0/8; names are not looked up."""
    try:
        return "/" in entry and ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return False
