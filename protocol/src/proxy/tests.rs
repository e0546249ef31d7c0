//! Headers as proxies send them, cut at every byte; headers as nobody should send them; and who is believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn complete(source: &str, bytes: usize) -> Result<Header, HeaderError> {
    Ok(Header::Complete { source: Some(source.parse().expect("an address")), bytes })
}

/// A header of version 2 with this command, family and body.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut out = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    out.extend([0x20 | command, family]);
    out.extend(u16::try_from(body.len()).expect("a short body").to_be_bytes());
    out.extend(body);
    out
}

fn v4_body(extra: &[u8]) -> Vec<u8> {
    [&[203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 0x1f, 0x40][..], extra].concat()
}

fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let v6: Vec<u8> = [Ipv6Addr::LOCALHOST.octets(), Ipv6Addr::UNSPECIFIED.octets()].concat();
    let v6 = [&v6[..], &[0, 80, 0, 81]].concat();
    vec![
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 8000\r\n".to_vec(), Some("203.0.113.7:12345")),
        (b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n".to_vec(), Some("[2001:db8::7]:1")),
        (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n".to_vec(), Some("203.0.113.7:1")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN whatever it is\r\n".to_vec(), None),
        (v2(1, 0x11, &v4_body(&[])), Some("203.0.113.7:12345")),
        (v2(1, 0x11, &v4_body(&[0x05, 0, 2, b'h', b'i', 0x04, 0, 0])), Some("203.0.113.7:12345")),
        (v2(1, 0x21, &v6), Some("[::1]:80")),
        (v2(1, 0x31, &[0; 216]), None),
        (v2(1, 0x00, &[]), None),
        (v2(0, 0x00, &[]), None),
        // LOCAL: the rest is to be discarded, whatever it says.
        (v2(0, 0x11, &v4_body(&[1])), None),
    ]
}

#[test]
fn headers_are_read_and_what_follows_is_left() {
    for (bytes, source) in good() {
        let whole = [&bytes[..], b"GET /ws HTTP/1.1\r\n"].concat();
        let due =
            source.map_or(Ok(Header::Complete { source: None, bytes: bytes.len() }), |s| complete(s, bytes.len()));

        assert_eq!(header(&whole), due, "{:?}", String::from_utf8_lossy(&bytes));
        assert!(is_header(&whole));
    }
}

#[test]
fn a_header_cut_at_any_byte_is_incomplete() {
    for (bytes, _) in good() {
        for cut in 0..bytes.len() {
            assert_eq!(header(&bytes[..cut]), Ok(Header::Incomplete), "{bytes:?} cut at {cut}");
        }
    }
}

#[test]
fn reading_what_is_missing_ends_exactly_behind_the_header() {
    for (bytes, _) in good() {
        let stream = [&bytes[..], b"GET /ws HTTP/1.1\r\n\r\n"].concat();
        let mut read = 0;
        while header(&stream[..read]) == Ok(Header::Incomplete) {
            read += missing(&stream[..read]);
        }

        assert_eq!(read, bytes.len(), "{:?}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn what_is_no_header_is_absent_from_its_first_wrong_byte() {
    for other in [&b"GET /ws"[..], b"\x16\x03\x01", b"PRI * HTTP/2.0", b"\r\n\r\nGET", b"PROXYTCP4"] {
        assert_eq!(header(other), Err(HeaderError::Absent), "{other:?}");
        assert!(!is_header(other));
    }
}

#[test]
fn malformed_headers_are_refused() {
    let lines = [
        "PROXY TCP4 203.0.113.7 10.0.0.1 12345 8000\n",
        "PROXY TCP4  203.0.113.7 10.0.0.1 12345 8000\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 12345\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 12345 8000 9\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 12345 8000 \r\n",
        "PROXY TCP4 203.0.113.256 10.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113.07 10.0.0.1 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY \r\n",
    ];
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    let binary = [
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x11, 0x11, 0, 12]].concat(),
        v2(2, 0x11, &v4_body(&[])),
        v2(1, 0x12, &v4_body(&[])),
        v2(1, 0x41, &v4_body(&[])),
        v2(1, 0x11, &v4_body(&[])[..11]),
        v2(1, 0x21, &v4_body(&[])),
        v2(1, 0x11, &v4_body(&[5])),
        v2(1, 0x11, &v4_body(&[5, 0])),
        v2(1, 0x11, &v4_body(&[5, 0, 1])),
        v2(1, 0x00, &vec![0; V2_BYTES_MAX - 15]),
    ];

    let all = lines.iter().map(|l| l.as_bytes().to_vec()).chain([long.into_bytes()]).chain(binary);
    for bytes in all {
        let outcome = header(&bytes);
        assert!(
            matches!(outcome, Err(HeaderError::Malformed(_))),
            "{outcome:?}: {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

fn networks(texts: &[&str]) -> Networks {
    Networks::parse(texts).expect("networks")
}

#[test]
fn networks_hold_their_addresses_and_no_others() {
    let trusted = networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"]);

    for inside in ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3", "192.0.2.7", "2001:db8:ffff::1", "::1"] {
        assert!(trusted.contain(inside.parse().expect("an address")), "{inside}");
    }
    for outside in ["11.0.0.0", "9.255.255.255", "192.0.2.6", "2001:db9::", "::2", "0.0.0.1", "::a00:1"] {
        assert!(!trusted.contain(outside.parse().expect("an address")), "{outside}");
    }
    assert!(!Networks::default().contain(IpAddr::V4(Ipv4Addr::LOCALHOST)));
}

#[test]
fn what_is_no_network_is_refused_with_a_remedy() {
    let refused = |text: &str| Networks::parse(&[text]).expect_err("no network").to_string();

    for text in ["", "proxy", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "::/129", "::ffff:10.0.0.0/104"] {
        assert!(refused(text).contains("is no network"), "{text}");
    }
    assert!(refused("10.0.0.5/8").contains("10.0.0.0/8 is the network"));
    assert!(refused("0.0.0.0/0").contains("everyone") && refused("::/0").contains("everyone"));
}

/// The client as a request with these header lines, from this peer, says.
fn client_of(lines: &[&str], peer: &str) -> String {
    let trusted = networks(&["10.0.0.0/8", "fd00::/8"]);
    let mut head = "GET /ws HTTP/1.1\r\nHost: a\r\n".to_owned();
    for line in lines {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    client(head.as_bytes(), peer.parse().expect("an address"), &trusted).to_string()
}

#[test]
fn the_rightmost_untrusted_hop_is_the_client() {
    let peer = "10.0.0.1:5000";
    let cases: [(&[&str], &str); 11] = [
        (&[], "10.0.0.1:5000"),
        (&["X-Forwarded-For: 203.0.113.7"], "203.0.113.7:0"),
        (&["x-forwarded-for: 203.0.113.7:4711"], "203.0.113.7:4711"),
        (&["X-Forwarded-For: 1.1.1.1, 203.0.113.7"], "203.0.113.7:0"),
        (&["X-Forwarded-For: 1.1.1.1, 203.0.113.7 , 10.0.0.2,10.9.9.9"], "203.0.113.7:0"),
        (&["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 10.0.0.2"], "203.0.113.7:0"),
        (&["X-Forwarded-For: 10.0.0.3, 10.0.0.2"], "10.0.0.3:0"),
        (&["X-Forwarded-For: [2001:db8::1]:99, fd00::1"], "[2001:db8::1]:99"),
        (&["X-Forwarded-For: 2001:db8::1"], "[2001:db8::1]:0"),
        // Unreadable: who is left of it cannot be known.
        (&["X-Forwarded-For: 203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2:0"),
        (&["X-Forwarded-For: "], "10.0.0.1:5000"),
    ];

    for (lines, due) in cases {
        assert_eq!(client_of(lines, peer), due, "{lines:?}");
    }
}

#[test]
fn an_untrusted_peer_says_nothing_about_others() {
    assert_eq!(client_of(&["X-Forwarded-For: 10.0.0.5"], "203.0.113.9:1"), "203.0.113.9:1");
}

fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    (prop_oneof![v4, v6], any::<(u16, u16)>())
        .prop_map(|((a, b), (p, q))| (SocketAddr::new(a, p), SocketAddr::new(b, q)))
}

proptest! {
    #[test]
    fn any_pair_of_addresses_survives_both_versions((from, to) in addresses(), cut in any::<prop::sample::Index>()) {
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        let line = format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let mut body = [octets(from.ip()), octets(to.ip())].concat();
        body.extend(from.port().to_be_bytes());
        body.extend(to.port().to_be_bytes());
        let due = SocketAddr::new(from.ip().to_canonical(), from.port());

        for bytes in [line.into_bytes(), v2(1, if from.is_ipv4() { 0x11 } else { 0x21 }, &body)] {
            prop_assert_eq!(header(&bytes), Ok(Header::Complete { source: Some(due), bytes: bytes.len() }));
            prop_assert_eq!(header(&bytes[..cut.index(bytes.len())]), Ok(Header::Incomplete));
        }
    }

    /// Whatever comes: no panic, and what is complete was all there.
    #[test]
    fn any_bytes_are_judged(tail in prop::collection::vec(any::<u8>(), 0..200), mark in 0usize..3) {
        let bytes = [[&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"][mark], &tail].concat();

        if let Ok(Header::Complete { bytes: used, .. }) = header(&bytes) {
            prop_assert!(used <= bytes.len() && used <= V2_BYTES_MAX);
            prop_assert_eq!(header(&bytes[..used]), header(&bytes));
            prop_assert_eq!(header(&bytes[..used - 1]), Ok(Header::Incomplete));
        }
    }
}
