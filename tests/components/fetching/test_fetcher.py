"""Every way in which a URL, a server or the network misbehaves ends in an image or in its reason."""

import asyncio
import datetime
import socket
import time

import pytest

from components.corpus.schemas import Reason
from components.fetching import addresses
from components.fetching.fetcher import Fetched, Fetcher
from components.fetching.rules import FetchRules
from tests.components.fetching.hostile_server import PNG, TAGS, png

RULES = FetchRules(
    allow_networks=("127.0.0.0/8",),
    max_bytes=2**20,
    tries=2,
    backoff=0.01,
    max_backoff=1.5,
)


def fetch(*urls: str | None, **changes) -> list[Fetched]:
    async def all_of_them():
        async with Fetcher(RULES.model_copy(update=changes)) as fetcher:
            return await asyncio.gather(*map(fetcher.fetch, urls))

    return asyncio.run(all_of_them())


def ended(fetched: Fetched) -> tuple[Reason | None, str]:
    return (fetched.rejection.reason, fetched.rejection.detail) if fetched.rejection else (None, "")


@pytest.fixture(scope="module")
def site(server):
    return server.site()


ANSWERS = {  # path -> reason and a part of the detail; None: an image comes
    "image/1": (None, ""),
    "mislabelled": (None, ""),
    "gzip": (None, ""),
    "flaky/1": (None, ""),
    "hops/5": (None, ""),
    "endless": (Reason.FETCH_TOO_LARGE, "at most 1,048,576"),
    "announced/1000000000000": (Reason.FETCH_TOO_LARGE, "1,000,000,000,000 bytes announced"),
    "bomb": (Reason.FETCH_TOO_LARGE, "at most 1,048,576"),
    "announced/5000": (Reason.FETCH_BROKEN, "not as long as announced"),
    "announced/60": (Reason.FETCH_BROKEN, ""),  # more is sent
    "reset": (Reason.FETCH_BROKEN, ""),
    "garbage": (Reason.FETCH_BROKEN, ""),
    "damaged-gzip": (Reason.FETCH_BROKEN, "compression"),
    "brotli": (Reason.FETCH_BROKEN, "br was not asked for"),
    "many-headers": (Reason.FETCH_BROKEN, ""),
    "html": (Reason.FETCH_NO_IMAGE, "HTML, called image/jpeg"),
    "bad-header": (Reason.FETCH_NO_IMAGE, "HTML, called image/??"),
    "svg": (Reason.FETCH_NO_IMAGE, "SVG"),
    "empty": (Reason.FETCH_NO_IMAGE, "an empty body"),
    "gif": (Reason.IMAGE_FORMAT, "GIF"),
    "status/403": (Reason.FETCH_STATUS, "HTTP 403"),
    "status/404": (Reason.FETCH_STATUS, "HTTP 404"),
    "status/410": (Reason.FETCH_STATUS, "HTTP 410"),
    "status/204": (Reason.FETCH_STATUS, "HTTP 204"),
    "status/500": (Reason.FETCH_STATUS, "HTTP 500"),
    "busy/3600": (Reason.FETCH_STATUS, "HTTP 429, to be asked again in 3,600 s"),
    "loop/a": (Reason.FETCH_REDIRECT, "in a loop"),
    "hops/6": (Reason.FETCH_REDIRECT, "more than 5 times"),
    "nowhere": (Reason.FETCH_REDIRECT, "names no target"),
    f"to/{b'http://10.0.0.1/x.png'.hex()}": (Reason.FETCH_ADDRESS, "10.0.0.1 is no public address"),
    f"to/{b'http://169.254.169.254/latest/meta-data'.hex()}": (Reason.FETCH_ADDRESS, "169.254.169.254"),
    f"to/{b'http://[::1]/x'.hex()}": (Reason.FETCH_ADDRESS, "::1"),
    f"to/{b'file:///etc/passwd'.hex()}": (Reason.FETCH_REDIRECT, "file: is not fetched"),
}


def test_every_misbehaviour_of_a_server_has_its_reason(site):
    found = fetch(*(f"{site.url}/{path}" for path in ANSWERS), connections_per_host=64)
    for (path, (reason, detail)), fetched in zip(ANSWERS.items(), found, strict=True):
        got, words = ended(fetched)
        assert (path, got) == (path, reason), words
        assert detail in words, path
        assert (fetched.image is None) == (reason is not None)
    by_path = dict(zip(ANSWERS, found, strict=True))
    assert by_path["image/1"].image == png(1)
    assert by_path["gzip"].image == by_path["hops/5"].image == PNG
    # What may pass was asked for again, what will not was not.
    assert [site.times(f"/{path}") for path in ("status/500", "flaky/1", "announced/5000")] == [2, 2, 2]
    assert site.times("/reset") >= 2  # the library, too, tries a lost connection again
    assert [site.times(f"/{path}") for path in ("status/404", "html", "busy/3600", "loop/a")] == [1, 1, 1, 1]
    assert site.times("/robots.txt") == site.times("/.well-known/tdmrep.json") == 1


def test_a_server_that_takes_for_ever_is_left(site):
    paths, limits = ("slow-body", "slow-head", "silent"), {"total_timeout": 0.5, "tries": 1}
    started = time.monotonic()
    found = fetch(*(f"{site.url}/{path}" for path in paths), robots=False, tdmrep=False, **limits)
    assert {ended(one) for one in found} == {(Reason.FETCH_TIMEOUT, "no whole answer in time")}
    assert time.monotonic() - started < 20  # a whole body would take a minute or more


@pytest.mark.parametrize("headers", TAGS)
def test_what_its_owner_reserves_is_not_taken(site, headers):
    (fetched,) = fetch(f"{site.url}/tag/{headers}")
    free = headers in ("other-agent", "harmless", "tdm-free")
    assert ended(fetched)[0] is (None if free else Reason.FETCH_OPT_OUT), ended(fetched)


def test_the_directives_that_count_and_our_names_may_be_chosen(site):
    taken, refused = fetch(f"{site.url}/tag/list", f"{site.url}/tag/other-agent", agents=("otherbot",))
    assert ended(taken)[1] == "X-Robots-Tag: noindex"
    assert ended(refused)[1] == "X-Robots-Tag: otherbot: noai"
    (taken,) = fetch(f"{site.url}/tag/list", opt_out_directives=("noai",))
    assert taken.image == PNG


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(site):
    started = time.monotonic()
    busy, other = fetch(f"{site.url}/busy/1", f"{site.url}/image/2", connections_per_host=1)
    assert busy.image == PNG
    assert other.image == png(2)
    assert time.monotonic() - started >= 1


def test_no_more_requests_reach_a_host_at_once_than_it_may_have(server):
    site = server.site()
    found = fetch(*(f"{site.url}/image/{n}" for n in range(12)), connections_per_host=2)
    assert [one.image for one in found] == [png(n) for n in range(12)]
    assert site.most_at_once <= 2
    started = time.monotonic()
    fetch(*(f"{site.url}/image/{n}" for n in range(4)), host_delay=0.1, robots=False, tdmrep=False)
    assert time.monotonic() - started >= 0.3


ROBOTS = "User-agent: straightshot\nDisallow: /image/7\n\nUser-agent: *\nDisallow: /\n"


def test_robots_txt_is_obeyed(server):
    named = server.site(robots=ROBOTS)
    everyone = server.site(robots="User-agent: *\nDisallow: /image/\nAllow: /image/3\n")
    broken = server.site(robots=503)
    redirecting = server.site()
    redirecting.files["/robots.txt"] = 404
    found = fetch(
        f"{named.url}/image/7",
        f"{named.url}/image/8",
        f"{everyone.url}/image/1",
        f"{everyone.url}/image/3",
        f"{broken.url}/image/1",
        f"{redirecting.url}/to/{f'{everyone.url}/image/5'.encode().hex()}",
    )
    assert [ended(one) for one in found] == [
        (Reason.FETCH_ROBOTS, "by robots.txt"),
        (None, ""),
        (Reason.FETCH_ROBOTS, "by robots.txt"),
        (None, ""),
        (Reason.FETCH_ROBOTS, "robots.txt: HTTP 503"),  # RFC 9309: then all is forbidden
        (Reason.FETCH_ROBOTS, "by robots.txt"),  # of the address that it is sent on to
    ]
    assert "/image/1" not in everyone.asked + broken.asked
    assert "/image/5" not in everyone.asked
    (taken,) = fetch(f"{everyone.url}/image/1", robots=False)
    assert taken.image == png(1)


def test_a_crawl_delay_is_waited(server):
    site = server.site(robots="User-agent: *\nCrawl-delay: 0.3\n")
    started = time.monotonic()
    fetch(*(f"{site.url}/image/{n}" for n in range(3)), tdmrep=False)
    assert time.monotonic() - started >= 0.6


TDMREP = """[{"location": "/image/1$", "tdm-reservation": 0}, {"location": "/image/*", "tdm-reservation": 1},
             {"location": 5}, {"location": "/gzip", "tdm-reservation": "x"}]"""


def test_tdmrep_json_is_obeyed(server):
    site, damaged = server.site(tdmrep=TDMREP), server.site(tdmrep="[{")
    paths = ("image/1", "image/12", "image/2", "gzip")
    found = fetch(*(f"{site.url}/{path}" for path in paths), f"{damaged.url}/image/1")
    assert [ended(one)[0] for one in found] == [None, Reason.FETCH_OPT_OUT, Reason.FETCH_OPT_OUT, None, None]
    assert "/image/2" not in site.asked
    (taken,) = fetch(f"{site.url}/image/2", tdmrep=False)
    assert taken.image == png(2)


NEVER_ASKED = {
    None: "no URL",
    "  ": "no URL",
    "data:image/png;base64,iVBORw0KGgo=": "data: is not fetched",
    "file:///etc/passwd": "file: is not fetched",
    "ftp://example.com/a.png": "ftp: is not fetched",
    "javascript:alert(1)": "javascript: is not fetched",
    "/images/a.png": "no http:// or https:// URL",
    "not a url": "no http:// or https:// URL",
    "http://": "",
    "http:///a.png": "",
    "http://exa mple.com/\udc80": "",
    "http://[::1/a.png": "",
    "http://example.com:99999/a.png": "",
    "http://user:secret@example.com/a.png": "it carries a user name",
    f"http://example.com/{'a' * 9000}": "9,019 characters",
    "http://" + "a" * 300 + ".com/": "no name of a host",
}


@pytest.mark.parametrize("url", NEVER_ASKED)
def test_what_is_no_url_of_the_web_is_refused(url):
    (fetched,) = fetch(url)
    reason, detail = ended(fetched)
    assert reason is Reason.FETCH_URL, detail
    assert NEVER_ASKED[url] in detail


def test_what_does_not_answer_is_unreachable(server, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        tls = server.site(certificate=_self_signed(tmp_path))
        plain = server.site()
        refused, unknown, untrusted, no_tls = fetch(
            f"http://127.0.0.1:{port}/a.png",
            "http://no-such-host.invalid/a.png",
            f"{tls.url}/image/1",
            f"{plain.url.replace('http', 'https')}/image/1",
        )
    for fetched in (refused, unknown, untrusted, no_tls):
        assert ended(fetched)[0] is Reason.FETCH_UNREACHABLE
        assert ended(fetched)[1].startswith("robots.txt: ")
    assert "refused" in ended(refused)[1]
    assert "its name is not resolved" in ended(unknown)[1]
    assert "TLS: " in ended(untrusted)[1]
    assert "certificate" in ended(untrusted)[1]
    assert "TLS: " in ended(no_tls)[1]
    assert [refused.answered, unknown.answered, untrusted.answered] == [False, False, True]


def test_nothing_connects_to_an_address_that_is_not_public(server, monkeypatch):
    site = server.site()
    port = site.url.rpartition(":")[2]
    hosts = ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "127.1")
    found = fetch(*(f"http://{host}:{port}/image/1" for host in hosts), allow_networks=())
    assert {ended(one)[0] for one in found} <= {Reason.FETCH_ADDRESS, Reason.FETCH_URL}
    assert ended(found[1])[1].endswith("no public address")
    assert site.connections == 0
    # A name that resolves to a public address for the check and to another one for the connection.
    monkeypatch.setattr(addresses, "_resolver", lambda policy: None)
    (rebound,) = fetch(f"http://localhost:{port}/image/1", allow_networks=())
    assert ended(rebound)[0] is Reason.FETCH_ADDRESS
    assert site.connections == 0
    (allowed,) = fetch(f"http://localhost:{port}/image/1", allow_networks=("127.0.0.0/8", "::1/128"))
    assert allowed.image == png(1)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *(
            ("8.8.8.8", True),
            ("2606:4700::1111", True),
            ("64:ff9b::8.8.8.8", True),
            ("2002:808:808::1", True),
        ),
        *(("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False), ("100.64.0.1", False)),
        *(("169.254.169.254", False), ("127.0.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False)),
        *(("255.255.255.255", False), ("240.0.0.1", False), ("192.0.2.1", False), ("198.18.0.1", False)),
        *(("::1", False), ("::", False), ("fe80::1%eth0", False), ("fc00::1", False), ("ff02::1", False)),
        *(("::ffff:10.0.0.1", False), ("64:ff9b::10.0.0.1", False), ("2002:7f00:1::1", False)),
        *(("fec0::1", False), ("::127.0.0.1", False), ("2001:db8::1", False)),
    ],
)
def test_which_addresses_are_public(address, public):
    assert addresses.AddressPolicy().permits(address) is public


def test_the_user_agent_names_the_project_and_a_contact(server):
    assert FetchRules(contact="https://example.com/crawl").user_agent.startswith("straightshot/")
    assert "+https://example.com/crawl" in FetchRules(contact="https://example.com/crawl").user_agent
    with pytest.raises(ValueError, match="printable ASCII"):
        FetchRules(contact="a\r\nX-Evil: 1")


def _self_signed(folder):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    path = folder / "server.pem"
    path.write_bytes(private + certificate.public_bytes(encoding))
    return path
