//! Addresses to listen on, as people write them: what is missing is said by example.

use std::net::SocketAddr;

/// Reads an address and a port.
///
/// # Errors
/// What to write instead.
pub fn parse(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| advice(text))
}

/// What to write instead of `text`, which is no address.
fn advice(text: &str) -> String {
    let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let host = text.rsplit_once(':').map_or("", |(host, _)| host);
    let port = port.filter(|_| host.is_empty() || !text.contains("::")).unwrap_or(8000);
    let why = match host {
        "" => "an address has an IP and a port",
        "*" => "every address of this machine is 0.0.0.0",
        _ => "an address has an IP, which may be no name, and a port",
    };
    format!(
        "{why}: write 127.0.0.1:{port} for clients on this machine, 0.0.0.0:{port} for those on others, or an IP of this \
         machine, such as 10.0.0.5:{port} or [fd00::5]:{port}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_answered_with_one() {
        for (text, port) in [("8000", 8000), (":9000", 9000), ("localhost:81", 81), ("*:80", 80), ("127.0.0.1", 8000)] {
            let why = parse(text).expect_err("no address");

            assert!(why.contains(&format!("write 127.0.0.1:{port} ")), "{text}: {why}");
        }
        assert_eq!(parse("127.0.0.1:1"), Ok(SocketAddr::from(([127, 0, 0, 1], 1))));
    }
}
