"""Which URL may see the key, which may be followed, and that a signed query never shows."""

from __future__ import annotations

from urllib.parse import quote

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluxwerk.errors import InvalidUsageError, UntrustedURLError
from fluxwerk.protocol import trust
from fluxwerk.protocol.trust import (
    base_url,
    check_delivery,
    check_polling,
    explain_refusal,
    may_carry_key,
    redact,
)

BFL = "https://api.bfl.ai"
LOCAL = "http://127.0.0.1:8000"
GATEWAY = "https://flux.example.com/team"
SCHEMES = st.sampled_from(["https", "http", "HTTPS", "hTTps", "ftp", "javascript", ""])
USERS = st.sampled_from(["", "me@", "api.bfl.ai@", "me:secret@", "@", "api.bfl.ai%40", "api.bfl.ai\\@", "api.bfl.ai#@"])
HOSTS = st.sampled_from(
    [
        "api.bfl.ai",
        "API.BFL.AI",
        "bfl.ai",
        "api.eu2.bfl.ai",
        "delivery-eu1.bfl.ai",
        "api.bfl.ai.",
        "api.bfl.ai.evil.com",
        "evilbfl.ai",
        "evil-bfl.ai",
        "bfl.ai.evil.com",
        "api.bfl.a",
        "api.bfl.ai\\.evil.com",
        "evil.com\\.bfl.ai",
        "evil.com#.bfl.ai",
        "evil.com?.bfl.ai",
        "evil.com/.bfl.ai",
        "evil.com\t.bfl.ai",
        "evil.com%2f.bfl.ai",
        "evil.com\N{FULLWIDTH SOLIDUS}.bfl.ai",
        "evil.com\N{IDEOGRAPHIC FULL STOP}bfl.ai",
        "xn--bfl-ai.com",
        "[::1]",
        "api.b\N{LATIN SMALL LIGATURE FL}.ai",
        "\N{FULLWIDTH LATIN SMALL LETTER B}fl.ai",
        "api.bfl\N{LATIN SMALL LETTER DOTLESS I}.ai",
        "127.0.0.1",
        "flux.example.com",
        "flux.example.com.evil.com",
        "evil.com;.bfl.ai",
        "[::1].bfl.ai",
        "api.bfl.ai\u200b.evil.com",
    ]
)
PORTS = st.sampled_from(["", ":", ":443", ":80", ":8000", ":0", ":99999", ":a", ":443@evil.com", ":\N{DIGIT FOUR}43"])
TRICKY = st.builds(
    "{}{}{}{}{}{}".format,
    SCHEMES,
    st.sampled_from(["://", ":", ":///", ":\\\\", "//"]),
    USERS,
    HOSTS,
    PORTS,
    st.sampled_from(["", "/v1/get_result?id=a", "@evil.com/", "\\@evil.com", "#@evil.com"]),
)
BASES = st.sampled_from([BFL, "https://api.eu.bfl.ai", LOCAL, GATEWAY, "http://api.bfl.ai", "https://API.bfl.ai:443"])


def origin(url):
    """The origin that the HTTP library would connect to."""
    url = httpx2.URL(url)
    return url.scheme, url.host, {"http": 80, "https": 443}[url.scheme] if url.port is None else url.port


def leads_somewhere(url):
    """Whether the HTTP library would connect at all."""
    try:
        return bool(httpx2.URL(url).host)
    except (httpx2.InvalidURL, UnicodeError):
        return False


def is_home(url):
    scheme, host, port = origin(url)
    return scheme == "https" and port == 443 and (host == "bfl.ai" or host.endswith(".bfl.ai"))


@given(st.one_of(TRICKY, st.text(max_size=60), st.text(max_size=20).map(lambda text: f"https://{text}.bfl.ai/")), BASES)
@example("https://api.bfl.ai:0/", BFL)
@example("https://evil.com%2f.bfl.ai/", BFL)
def test_the_key_goes_to_no_other_host_however_it_is_written(url, base):
    if may_carry_key(url, base) and leads_somewhere(url):
        assert origin(url) == origin(base) or (is_home(url) and is_home(base))
        assert httpx2.URL(url).userinfo == b""


@given(TRICKY, BASES)
def test_what_is_polled_may_carry_the_key_and_nothing_else_is_polled(url, base):
    try:
        assert check_polling(url, base) == url
        polled = True
    except UntrustedURLError:
        polled = False

    assert polled == (may_carry_key(url, base) and trust.residence(base) in (None, trust.residence(url)))


@given(TRICKY, BASES)
def test_an_image_comes_over_https_or_from_the_service_itself(url, base):
    try:
        check_delivery(url, base)
    except UntrustedURLError:
        return

    assert not leads_somewhere(url) or origin(url)[0] == "https" or origin(url) == origin(base)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.bfl.ai/v1/get_result?id=a",
        "https://api.eu2.bfl.ai/v1/get_result?id=a",
        "https://gateway.bfl.ai:443/x",
        "HTTPS://API.US1.BFL.AI/x",
    ],
)
def test_every_cluster_of_the_service_may_be_polled_with_the_key(url):
    assert may_carry_key(url, BFL)
    assert may_carry_key(url, "https://api.us.bfl.ai")


@pytest.mark.parametrize(
    "url",
    [
        "http://api.bfl.ai/x",
        "https://api.bfl.ai:8443/x",
        "https://api.bfl.ai.evil.com/x",
        "https://evilbfl.ai/x",
        "https://me@api.bfl.ai/x",
        "https://api.bfl.ai\\@evil.com/x",
        "https://api.bfl.ai./x",
        "https://evil.com%2f.bfl.ai/x",
        "https://evil.com;.bfl.ai/x",
        "https://[::1",
        "https://api.bfl.ai:port/",
        "https:///x",
        "/v1/get_result?id=a",
        "",
    ],
)
def test_the_key_of_the_service_goes_nowhere_else(url):
    assert not may_carry_key(url, BFL)


def test_a_server_of_ones_own_sees_the_key_at_its_own_origin_only():
    assert may_carry_key(f"{LOCAL}/v1/get_result?id=a", LOCAL)
    assert not may_carry_key("http://127.0.0.1:8001/v1/get_result?id=a", LOCAL)
    assert not may_carry_key("https://127.0.0.1:8000/v1/get_result?id=a", LOCAL)
    assert not may_carry_key("https://api.bfl.ai/v1/get_result?id=a", LOCAL)


def test_a_base_that_cannot_be_read_trusts_nobody():
    assert not may_carry_key("https://api.bfl.ai/x", "no base")


def test_an_image_may_come_from_any_https_host():
    url = "https://bfldeliveryprod.blob.core.windows.net/results/a.png?sig=b"

    assert check_delivery(url, BFL) == url


@pytest.mark.parametrize(
    "url",
    [
        "https://api.bfl.ai%40xn--bfl-ai.com/",
        f"https://{'a' * 64}.bfl.ai/",
        "https://a..bfl.ai/",
        "https://fl\N{LATIN SMALL LETTER U WITH DIAERESIS}x.ai/",
    ],
)
def test_an_image_comes_from_no_host_that_the_library_cannot_read(url):
    with pytest.raises(UntrustedURLError):
        check_delivery(url, BFL)


@pytest.mark.parametrize("url", ["http://delivery.bfl.ai/a.png", "file:///etc/passwd", "", "//delivery.bfl.ai/a"])
def test_an_image_never_comes_over_an_open_line(url):
    with pytest.raises(UntrustedURLError):
        check_delivery(url, BFL)


@pytest.mark.parametrize("mark", ["%2f", ";", "\N{IDEOGRAPHIC FULL STOP}", "\\", "\t", "\n", " ", "\0", "\x7f"])
def test_a_url_that_parsers_read_in_different_ways_is_not_followed(mark):
    with pytest.raises(UntrustedURLError):
        check_delivery(f"https://good.example.com{mark}.evil.com/a.png", BFL)


STORE = "http://store.internal:9000/results/a.png"


@pytest.mark.parametrize("host", ["store.internal", "store.internal:9000", "STORE.internal"])
def test_a_plain_base_may_deliver_by_plain_http_from_hosts_it_is_told(host):
    hosts = trust.delivery_hosts([host], LOCAL)

    assert check_delivery(STORE, LOCAL, hosts) == STORE
    with pytest.raises(UntrustedURLError):
        check_delivery("http://other.internal:9000/results/a.png", LOCAL, hosts)


@pytest.mark.parametrize("hosts", [(), ("store.internal:9001",), ("internal",)])
def test_a_plain_base_delivers_from_no_other_plain_host(hosts):
    with pytest.raises(UntrustedURLError):
        check_delivery(STORE, LOCAL, trust.delivery_hosts(hosts, LOCAL))


def test_a_base_of_https_has_no_plain_delivery_hosts():
    with pytest.raises(UntrustedURLError):
        check_delivery(STORE, BFL, {"store.internal"})
    with pytest.raises(InvalidUsageError, match=r"delivery_hosts = 'store.internal': needs a base URL of plain http"):
        trust.delivery_hosts(["store.internal"], BFL)


@pytest.mark.parametrize("wrong", ["http://store.internal", "store.internal/a", "a b", "user@store", "store:0", ""])
def test_a_delivery_host_is_a_host_and_nothing_else(wrong):
    with pytest.raises(InvalidUsageError, match="must be a host, or a host and port"):
        trust.delivery_hosts([wrong], LOCAL)


def test_a_refused_url_is_shown_without_its_query():
    with pytest.raises(UntrustedURLError, match=r"http://evil.com/a\?…") as caught:
        check_delivery("http://evil.com/a?sig=secret", BFL)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("region", "base"),
    [(None, BFL), ("global", BFL), ("eu", "https://api.eu.bfl.ai"), ("us", "https://api.us.bfl.ai")],
)
def test_a_region_has_an_address(region, base):
    assert base_url(region, None) == base


@pytest.mark.parametrize(
    "base", ["http://[::1]:8000", "http://flux_server:8000", "http://localhost", "https://xn--flx-hoa.ai"]
)
def test_an_address_may_be_any_host_that_a_machine_can_have(base):
    assert base_url(None, base) == base


def test_a_given_address_loses_only_its_last_slash():
    assert base_url(None, "http://127.0.0.1:8000/flux/") == "http://127.0.0.1:8000/flux"


@pytest.mark.parametrize(("region", "given"), [("eu", BFL), ("mars", None)])
def test_a_region_that_makes_no_sense_is_refused(region, given):
    with pytest.raises(InvalidUsageError, match=r"not both|There is no region 'mars'; the regions are global, eu, us"):
        base_url(region, given)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        (" http://localhost:8000\n", "http://localhost:8000"),
    ],
)
def test_a_bare_host_of_this_machine_is_taken_as_http(given, taken):
    assert base_url(None, given) == taken


FORM = "a base URL has the form https://api.bfl.ai or http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("http://host/v1", "the client adds /v1 and the model's path itself. Write http://host."),
        ("http://host:8000/v1/", "Write http://host:8000."),
        ("https://api.bfl.ai/v1/flux-2-pro", "Write https://api.bfl.ai."),
        ("http://gateway/bfl/v1/get_result?id=7", "Write http://gateway/bfl."),
        ("localhost:8000/v1", "Write http://localhost:8000."),
        ("api.bfl.ai", "the scheme is missing. Write https://api.bfl.ai."),
        ("flux.local:8000", "Write https://flux.local:8000, or http://flux.local:8000 within your own network."),
        ("https://a?b", "it has no query and no fragment. Write https://a."),
        ("https://a/b#c", "Write https://a/b."),
        ("https://docs.bfl.ai/flux_2", "docs.bfl.ai is a website of BFL, not its API. Write https://api.bfl.ai."),
        ("http://api.bfl.ai", "plain http would show the key to the network. Write https://api.bfl.ai."),
        ("ftp://a", FORM),
        ("htp://a", FORM),
        ("http:/host", FORM),
        ("http//host", FORM),
        ("https://", FORM),
        ("http:host", FORM),
        ("https://a:port", FORM),
        ("https://me:secret@a", FORM),
    ],
)
def test_a_near_miss_of_a_base_url_is_answered_with_the_right_form(given, said):
    with pytest.raises(InvalidUsageError) as caught:
        base_url(None, given)

    assert " is not a base URL" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("given", ["https://me:CANARY@a", "https://a/?key=CANARY", "https://" + "CANARY" * 100 + " "])
def test_a_refused_base_url_is_shown_without_secrets_and_in_short(given):
    with pytest.raises(InvalidUsageError) as caught:
        base_url(None, given)

    assert len(str(caught.value)) < 250
    assert given.count("CANARY") > 1 or "CANARY" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_a_base_url_or_refused(text):
    try:
        taken = base_url(None, text)
    except InvalidUsageError:
        return
    assert taken.lower().startswith(("http://", "https://"))
    assert may_carry_key(f"{taken}/v1/flux-2-pro", taken)


@pytest.mark.parametrize(
    ("status", "location", "said"),
    [
        (404, "", "http://host/v1/flux-2-pro was asked. Check the base URL"),
        (405, "", "http://host/v1/flux-2-pro was asked. Check the base URL"),
        (301, "https://host/v1/flux-2-pro?sig=CANARY", "http://host/v1/flux-2-pro redirects to https://host, and"),
        (308, "elsewhere", "http://host/v1/flux-2-pro redirects, and"),
        (422, "", ""),
        (304, "", ""),
    ],
)
def test_a_refusal_that_hints_at_a_wrong_base_url_says_what_was_asked(status, location, said):
    told = explain_refusal(status, "http://host/v1/flux-2-pro", location)

    assert (said in told) if said else not told
    assert "CANARY" not in told


LEGAL = st.text("abcXYZ019-._~!$&'()*+,;=:@/?%", min_size=1, max_size=40)


@given(st.text(max_size=20), LEGAL, st.sampled_from(["", " ", '"', " then more", "\n", ">"]))
def test_redacting_leaves_no_query(before, query, after):
    shown = redact(f"{before} https://delivery.bfl.ai/a.png?sig={query}{after}")

    assert shown.endswith(f" https://delivery.bfl.ai/a.png?…{after}")


@given(st.text(max_size=60))
def test_redacting_twice_changes_nothing_more(text):
    assert redact(redact(text)) == redact(text)


@given(st.text(max_size=60).map(quote))
def test_a_text_without_a_query_stays_as_it_is(text):
    assert redact(text) == text


def test_the_regions_are_all_https_hosts_of_the_service():
    assert all(is_home(base) for base in trust.REGIONS.values())


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://api.eu.bfl.ai/v1/get_result?id=1", "eu"),
        ("https://api.eu4.bfl.ai/v1/get_result?id=1", "eu"),
        ("https://delivery-us1.bfl.ai/results/a", "us"),
        ("https://delivery.us-east.bfl.ai/results/a", "us"),
        ("https://api.bfl.ai/v1/get_result?id=1", None),
        ("https://gateway.bfl.ai/v1/get_result?id=1", None),
        ("https://europe.bfl.ai/", None),
        ("https://api.eu.evil.example/", None),
    ],
)
def test_the_residence_of_a_url_is_read_from_its_host(url, region):
    assert trust.residence(url) == region


def test_a_pinned_region_follows_only_urls_that_are_bound_to_it():
    eu = trust.REGIONS["eu"]
    assert trust.check_polling("https://api.eu2.bfl.ai/v1/get_result?id=1", eu)
    assert trust.check_delivery("https://delivery-eu1.bfl.ai/results/a", eu)
    for check, url in (
        (trust.check_polling, "https://api.us.bfl.ai/v1/get_result?id=1"),
        (trust.check_polling, "https://gateway.bfl.ai/v1/get_result?id=1"),
        (trust.check_delivery, "https://delivery-us1.bfl.ai/results/a"),
        (trust.check_delivery, "https://storage.example/results/a"),
    ):
        with pytest.raises(UntrustedURLError, match="pinned to eu"):
            check(url, eu)


def test_only_the_global_region_has_others_to_turn_to():
    assert trust.fallbacks(trust.REGIONS["global"]) == (trust.REGIONS["eu"], trust.REGIONS["us"])
    assert trust.fallbacks(trust.REGIONS["eu"]) == ()
    assert trust.fallbacks("http://127.0.0.1:8000") == ()
