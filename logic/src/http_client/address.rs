//! Which addresses a webhook may lead to: by default only those of the public internet, so that neither a configured name
//! that somebody else can point elsewhere nor a slip of the pen reaches what stands behind the firewall
//! (reliability.md, threat 29). Pure; `connect` asks for each address before it connects to exactly that one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not for webhooks.
///
/// # Errors
/// What kind of address it is, in words.
pub fn check_public(ip: IpAddr) -> Result<(), &'static str> {
    match ip {
        IpAddr::V4(v4) => check_v4(v4),
        IpAddr::V6(v6) => check_v6(v6),
    }
}

/// IANA's special-purpose registry (RFC 6890 and later), whatever is not globally reachable; and the old relays.
fn check_v4(ip: Ipv4Addr) -> Result<(), &'static str> {
    match ip.octets() {
        [0, ..] => Err("an address of \"this network\""),
        [127, ..] => Err("a loopback address"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Err("a private address"),
        [169, 254, ..] => Err("a link-local address (cloud metadata lives there)"),
        [100, 64..=127, ..] => Err("a shared address (carrier NAT)"),
        [192, 0, 0, _] | [192, 88, 99, _] => Err("a special-purpose address"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Err("an address for documentation"),
        [198, 18..=19, ..] => Err("an address for benchmarks"),
        [224..=239, ..] => Err("a multicast address"),
        [240..=255, ..] => Err("a reserved address"),
        _ => Ok(()),
    }
}

/// Global unicast is 2000::/3; whatever carries an IPv4 address is as good as that one.
fn check_v6(ip: Ipv6Addr) -> Result<(), &'static str> {
    let s = ip.segments();
    let v4_of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Err("the unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Err("a loopback address"),
        // IPv4-mapped, IPv4-translated, IPv4-compatible, NAT64.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => check_v4(v4_of(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => check_v4(v4_of(high, low)),
        [0xfc00..=0xfdff, ..] => Err("a private address"),
        [0xfe80..=0xfebf, ..] => Err("a link-local address"),
        [0xff00..=0xffff, ..] => Err("a multicast address"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Err("an address for documentation"),
        // Protocol assignments, Teredo among them.
        [0x2001, 0..=0x1ff, ..] => Err("a special-purpose address"),
        [0x2000..=0x3fff, ..] => Ok(()),
        _ => Err("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), &'static str> {
        check_public(text.parse().expect("an address"))
    }

    #[test]
    fn what_is_not_of_the_public_internet_is_refused() {
        let inside = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "fec0::1",
            "ff02::1",
            "100::1",
            "2001:db8::1",
            "3fff::1",
            "2001::1",
            "2001:10::1",
            "5f00::1",
            "64:ff9b:1::1",
            "4000::1",
        ];
        for ip in inside {
            assert!(check(ip).is_err(), "{ip}");
        }
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_still_that_address() {
        for v4 in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0"] {
            for clothes in ["::ffff:", "::ffff:0:", "::", "64:ff9b::"] {
                assert!(check(&format!("{clothes}{v4}")).is_err(), "{clothes}{v4}");
            }
        }
        assert!(check("2002:7f00:1::1").is_err() && check("2002:a9fe:a9fe::1").is_err());
        assert_eq!(check("64:ff9b::93.184.216.34"), Ok(()));
        assert_eq!(check("::ffff:93.184.216.34"), Ok(()));
    }

    #[test]
    fn the_public_internet_is_allowed() {
        for ip in
            ["1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "223.255.255.254"]
        {
            assert_eq!(check(ip), Ok(()), "{ip}");
        }
        for ip in ["2606:4700::1111", "2a00:1450:4001::1", "2001:200::1", "2001:4860:4860::8888"] {
            assert_eq!(check(ip), Ok(()), "{ip}");
        }
    }
}
