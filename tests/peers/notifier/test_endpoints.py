"""The URLs that strangers register, by their text alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from peers.notifier.addresses import is_public
from peers.notifier.endpoints import PORTS, URL_MAX, AllowedHost, check_endpoint


@pytest.mark.parametrize(
    ("text", "origin", "path"),
    [
        ("https://updates.push.services.mozilla.com/wpush/v2/gAAAAB-x_y", "https://updates.push.services.mozilla.com",
         "/wpush/v2/gAAAAB-x_y"),
        ("https://fcm.googleapis.com/fcm/send/abc:APA91b-_", "https://fcm.googleapis.com", "/fcm/send/abc:APA91b-_"),
        ("https://web.push.apple.com/QABC", "https://web.push.apple.com", "/QABC"),
        ("https://ntfy.sh/upAbCdEf?up=1", "https://ntfy.sh", "/upAbCdEf?up=1"),
        ("https://Push.Example.ORG:8443/a%2Fb?c=d%26e", "https://push.example.org:8443", "/a%2Fb?c=d%26e"),
        ("https://wns2-db5p.notify.windows.com/w/?token=BQY%2fAAA%2b%3d%7e/../x%zz", "https://wns2-db5p.notify.windows.com",
         "/w/?token=BQY%2fAAA%2b%3d%7e/../x%zz"),
        ("https://push.example.org/a%2fb/../%7Ec//d?", "https://push.example.org", "/a%2fb/../%7Ec//d"),
        ("https://push.example.org?a=b", "https://push.example.org", "/?a=b"),
        ("https://push.example.org/ü?ö=ä", "https://push.example.org", "/%C3%BC?%C3%B6=%C3%A4"),
        ("HTTPS://push.example.org:443/", "https://push.example.org", "/"),
        ("https://pusch.größe.de/a", "https://pusch.xn--gre-6ka8i.de", "/a"),
    ],
)  # fmt: skip
def test_endpoints_of_push_services_pass(text: str, origin: str, path: str) -> None:
    endpoint = check_endpoint(text)
    assert endpoint.origin == origin
    assert endpoint.url.raw_path_qs == path
    assert endpoint.url.origin() == URL(endpoint.origin)
    assert not endpoint.allowed
    assert "push" not in repr(endpoint), "the path is a secret, and the host says who somebody is"


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "/path", "//push.example.org/", "push.example.org", "https:", "https://", "https:///x",
        "https:push.example.org",
        "http://push.example.org/", "ftp://push.example.org/", "file:///etc/passwd", "unix:///run/x",
        "javascript:alert(1)",
        "wss://push.example.org/", "https+unix://push.example.org/",
        # literal addresses, in every form
        "https://127.0.0.1/", "https://8.8.8.8/", "https://[::1]/", "https://[2606:4700::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[::ffff:127.0.0.1]/", "https://127.1/", "https://2130706433/", "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/", "https://0x7f.0.0.0x1/", "https://1.2.3.4.5/", "https://a.0x/", "https://a.1/",
        "https://[::1",
        "https://①②⑦.0.0.1/", "https://127。0。0。1/", "https://⑯⑨.254.169.254/",
        # names that are never public
        "https://localhost/", "https://LOCALHOST/", "https://a.localhost/", "https://metadata.google.internal/",
        "https://ntfy/",
        "https://nas.local/", "https://printer.home.arpa/", "https://x.onion/", "https://push.example/",
        "https://x.test/",
        # odd spellings of names
        "https://push.example.org./", "https://push..example.org/", "https://.example.org/", "https://-a.example.org/",
        "https://a-.example.org/", "https://%6c%6fcalhost/", "https://push.example.org%2f@x/",
        "https://" + "a" * 64 + ".org/",
        "https://" + "a." * 130 + "org/", "https://a_b.ex!mple.org/", "https://*.example.org/", "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
        # ports, users, fragments
        "https://push.example.org:22/", "https://push.example.org:80/", "https://push.example.org:0/",
        "https://push.example.org:65536/",
        "https://push.example.org:-1/", "https://push.example.org:x/", "https://push.example.org:444/",
        "https://user@push.example.org/", "https://user:pass@push.example.org/", "https://:pass@push.example.org/",
        "https://push.example.org@127.0.0.1/", "https://push.example.org:443@evil.example.org/",
        "https://push.example.org/#x",
        # what other readers of URLs read otherwise
        "https://push.example.org\\@127.0.0.1/", "https://push.example.org\t/", " https://push.example.org/",
        "https://push.example.org/\n",
        "https://push.exam\nple.org/", "https://push.example.org/\x00", "https://push.example.org/a b",
        "https://push.example.org/\r\nX: y",
        "https://push.example.org/\x85", "https://push.example.org/{x}", "https://push.example.org/" + "a" * URL_MAX,
    ],
)  # fmt: skip
def test_everything_else_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="endpoint") as caught:
        check_endpoint(text)
    assert "push.example" not in str(caught.value)


@given(
    st.one_of(
        st.text(), st.from_regex(r"https?://[^/]{0,30}(/.*)?"), st.ip_addresses().map(lambda ip: f"https://{ip}/")
    )
)
def test_any_text_passes_or_is_a_value_error(text: str) -> None:
    try:
        endpoint = check_endpoint(text)
    except ValueError:
        return
    assert endpoint.url.scheme == "https"
    assert endpoint.url.port in PORTS
    assert endpoint.url.user is None
    host = endpoint.url.raw_host
    assert host is not None
    assert host.isascii()
    assert "." in host
    assert not is_public(host), "no literal address"
    assert all(" " < each < "\x7f" for each in endpoint.url.raw_path_qs), "nothing that ends a request line"


class TestAllowedHosts:
    @pytest.mark.parametrize(
        ("text", "host", "port", "scheme"),
        [
            ("ntfy.example.org", "ntfy.example.org", 443, "https"),
            ("NTFY.example.org:8443", "ntfy.example.org", 8443, "https"),
            ("https://ntfy", "ntfy", 443, "https"),
            ("http://ntfy", "ntfy", 80, "http"),
            ("http://127.0.0.1:8080/", "127.0.0.1", 8080, "http"),
            ("http://[::1]:8080", "::1", 8080, "http"),
        ],
    )
    def test_read(self, text: str, host: str, port: int, scheme: str) -> None:
        assert AllowedHost.parse(text) == AllowedHost(host, port, scheme)

    @pytest.mark.parametrize(
        "text",
        ["", " ", "http://", "ntfy/path", "ntfy?x", "ntfy#x", "user@ntfy", "ntfy:0", "ntfy:99999", "ntfy:x",
        "ftp://ntfy", "a b",
         "ntfy\n", ":8080", "http://ntfy/up*"],
    )  # fmt: skip
    def test_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"an allowed host is \[http://\]HOST\[:PORT\]"):
            AllowedHost.parse(text)

    def test_what_is_allowed_passes_and_nothing_near_it(self) -> None:
        allowed = [
            AllowedHost.parse("http://127.0.0.1:8080"),
            AllowedHost.parse("ntfy:8443"),
            AllowedHost.parse("http://[::1]:1"),
        ]
        for text, origin in (
            ("http://127.0.0.1:8080/up?x=1", "http://127.0.0.1:8080"),
            ("https://ntfy:8443/up", "https://ntfy:8443"),
            ("https://NTFY:8443/up", "https://ntfy:8443"),
            ("http://[::1]:1/", "http://[::1]:1"),
        ):
            endpoint = check_endpoint(text, allowed)
            assert endpoint.allowed
            assert endpoint.origin == origin
        for text in (
            "https://127.0.0.1:8080/", "http://127.0.0.1/", "http://127.0.0.1:8081/", "http://127.0.0.2:8080/",
            "http://localhost:8080/",
            "http://ntfy:8443/", "https://ntfy/", "https://ntfy:443/", "http://x@127.0.0.1:8080/",
            "http://127.0.0.1:8080/#x",
            "http://127.1:8080/", "http://127.0.0.1.:8080/",
        ):  # fmt: skip
            with pytest.raises(ValueError, match="endpoint"):
                check_endpoint(text, allowed)
        assert not check_endpoint("https://push.example.org/", allowed).allowed
