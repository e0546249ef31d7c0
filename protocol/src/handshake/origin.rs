//! Which web pages may connect (rule C-3), against cross-site WebSocket hijacking.
//! Says nothing about clients that are no browsers: they send any `Origin`, or none.
//! Invariant: comparing allocates nothing, and a host is compared as a whole or from a label's start, never as bare text.

/// The allowed origins. The empty list (the default) lets no page in, only clients that send no `Origin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// `*`: anything goes, `null` and nonsense included.
    is_any: bool,
    /// `null`: sandboxed frames, and in some browsers pages opened from a disk.
    has_null: bool,
    /// `file://`: pages opened from a disk in the others, and those inside an app.
    has_file: bool,
    patterns: Vec<Pattern>,
}

/// The only origin without a host.
const FILE: &str = "file://";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    scheme: Box<str>,
    /// With its leading dot if `is_wildcard`.
    host: Box<str>,
    /// Any host that ends with `host` and has a label before it.
    is_wildcard: bool,
    port: PortPattern,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortPattern {
    Any,
    /// `None` is the port of a scheme that has no default.
    Exactly(Option<u16>),
}

/// An entry of `allowed_origins` that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error("allowed origin `{entry}` has no scheme; write it as in https://app.example.com")]
    Scheme { entry: String },
    #[error(
        "allowed origin `{entry}` has no usable host; write https://app.example.com or https://*.example.com, without path"
    )]
    Host { entry: String },
    #[error("allowed origin `{entry}` has no usable port; write a number from 1 to 65535, or * for any")]
    Port { entry: String },
}

impl Origins {
    /// Reads the entries of `allowed_origins`: `https://app.example.com`, `https://*.example.com`, `http://localhost:*`, `file://`, `null`, `*`.
    ///
    /// # Errors
    ///
    /// The first entry that is none of these.
    pub fn parse(entries: &[String]) -> Result<Self, OriginError> {
        let mut origins = Self::default();
        for entry in entries {
            match entry.as_str() {
                "*" => origins.is_any = true,
                "null" => origins.has_null = true,
                FILE => origins.has_file = true,
                _ => origins.patterns.push(Pattern::parse(entry)?),
            }
        }
        Ok(origins)
    }

    /// Whether a page with this `Origin` header may connect.
    #[must_use]
    pub fn allows(&self, origin: &[u8]) -> bool {
        if self.is_any {
            return true;
        }
        if origin == b"null" {
            return self.has_null;
        }
        if origin.eq_ignore_ascii_case(FILE.as_bytes()) {
            return self.has_file;
        }
        let Some(origin) = std::str::from_utf8(origin).ok().and_then(Origin::parse) else { return false };
        self.patterns.iter().any(|pattern| pattern.matches(&origin))
    }
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, OriginError> {
        let (scheme, authority) = split_scheme(entry).ok_or_else(|| OriginError::Scheme { entry: entry.to_owned() })?;
        let (host, port) = split_port(authority);
        let is_wildcard = host.starts_with("*.");
        let host = if is_wildcard { &host[1..] } else { host };
        let labels = if is_wildcard { &host[1..] } else { host };
        if !is_host(labels) {
            return Err(OriginError::Host { entry: entry.to_owned() });
        }
        let port = match port {
            Some("*") => PortPattern::Any,
            port => PortPattern::Exactly(
                read_port(scheme, port).ok_or_else(|| OriginError::Port { entry: entry.to_owned() })?,
            ),
        };
        Ok(Self { scheme: scheme.into(), host: host.into(), is_wildcard, port })
    }

    fn matches(&self, origin: &Origin<'_>) -> bool {
        let host = if self.is_wildcard {
            // `host` begins with a dot, so the cut falls between labels; something must be left before it.
            match origin.host.len().checked_sub(self.host.len()) {
                None | Some(0) => return false,
                Some(cut) => &origin.host.as_bytes()[cut..],
            }
        } else {
            origin.host.as_bytes()
        };
        let is_port = match self.port {
            PortPattern::Any => true,
            PortPattern::Exactly(port) => port == origin.port,
        };
        is_port && host.eq_ignore_ascii_case(self.host.as_bytes()) && origin.scheme.eq_ignore_ascii_case(&self.scheme)
    }
}

/// An `Origin` header taken apart (RFC 6454 section 6.2).
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    /// The scheme's default when not written.
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    fn parse(origin: &'a str) -> Option<Self> {
        let (scheme, authority) = split_scheme(origin)?;
        let (host, port) = split_port(authority);
        if !is_host(host) {
            return None;
        }
        Some(Self { scheme, host, port: read_port(scheme, port)? })
    }
}

fn split_scheme(origin: &str) -> Option<(&str, &str)> {
    let (scheme, authority) = origin.split_once("://")?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    is_scheme.then_some((scheme, authority))
}

/// Host and port; the colons of an IPv6 address stay in its brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// The port as a number, the scheme's default for none written; `None` if it is no port.
fn read_port(scheme: &str, port: Option<&str>) -> Option<Option<u16>> {
    match port {
        // Digits only: `u16::from_str` would take a sign.
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().filter(|n| *n > 0).map(Some),
        Some(_) => None,
        None if scheme.eq_ignore_ascii_case("https") => Some(Some(443)),
        None if scheme.eq_ignore_ascii_case("http") => Some(Some(80)),
        None => Some(None),
    }
}

/// A name, an IPv4 address, or an IPv6 address in brackets: nothing that could hide another host (`@`, `/`, `#`, `\`) and no
/// empty label, so `.example.com` is none. Browsers send international names in their ASCII form.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return address.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
    }
    host.split('.')
        .all(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(entries: &[&str]) -> Result<Origins, OriginError> {
        Origins::parse(&entries.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>())
    }

    fn allows(entry: &str, origin: &str) -> bool {
        origins(&[entry]).expect("valid entry").allows(origin.as_bytes())
    }

    /// Rule C-3.
    #[test]
    fn an_origin_is_allowed_exactly_if_an_entry_covers_it() {
        let table = [
            ("https://app.example.com", "https://app.example.com", true),
            ("https://app.example.com", "HTTPS://App.Example.COM", true),
            ("https://app.example.com", "https://app.example.com:443", true),
            ("https://app.example.com:443", "https://app.example.com", true),
            ("https://app.example.com", "https://app.example.com:8443", false),
            ("https://app.example.com", "http://app.example.com", false),
            ("https://app.example.com", "https://app.example.com.evil.com", false),
            ("https://app.example.com", "https://app.example.com/", false),
            ("https://app.example.com", "https://app.example.com@evil.com", false),
            ("https://*.example.com", "https://app.example.com", true),
            ("https://*.example.com", "https://a.b.EXAMPLE.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://.example.com", false),
            ("https://*.example.com", "https://example.com.evil.com", false),
            ("https://*.example.com", "https://evil-example.com", false),
            ("https://*.example.com", "https://evil.com/.example.com", false),
            ("https://*.example.com", "https://evil.com#.example.com", false),
            ("https://*.example.com", "https://evil.com\\.example.com", false),
            ("https://*.example.com", "https://evil.com:80@a.example.com", false),
            ("https://*.example.com", "https://app.example.com:444", false),
            ("https://*.example.com:*", "https://app.example.com:444", true),
            ("http://localhost:*", "http://localhost", true),
            ("http://localhost:*", "http://localhost:5173", true),
            ("http://localhost:*", "http://localhost:", false),
            ("http://localhost:*", "http://localhost:+80", false),
            ("http://localhost:*", "http://localhost:70000", false),
            ("http://localhost:*", "http://localhost.evil.com:80", false),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("http://[::1]", "http://[::1]", true),
            ("http://[::1]", "http://[::2]", false),
            ("capacitor://localhost", "capacitor://localhost", true),
            ("null", "null", true),
            ("null", "file://", false),
            ("file://", "file://", true),
            ("file://", "FILE://", true),
            ("file://", "null", false),
            ("file://", "file:///home/a.html", false),
            ("file://", "file://host", false),
            ("https://app.example.com", "file://", false),
            ("*", "file://", true),
            ("https://app.example.com", "null", false),
            ("*", "null", true),
            ("*", "https://anything.at.all", true),
            ("*", "\u{fffd}", true),
            ("https://app.example.com", "", false),
        ];
        for (entry, origin, expected) in table {
            assert_eq!(allows(entry, origin), expected, "{entry} with {origin}");
        }
    }

    #[test]
    fn an_empty_list_lets_no_page_in() {
        assert!(!Origins::default().allows(b"https://app.example.com"));
        assert!(!Origins::default().allows(b"null"));
    }

    #[test]
    fn one_matching_entry_of_several_is_enough() {
        let origins = origins(&["https://a.example", "https://b.example"]).expect("valid");

        assert!(origins.allows(b"https://b.example"));
        assert!(!origins.allows(b"https://c.example"));
        assert!(!origins.allows(b"https://\xff.example"));
    }

    #[test]
    fn entries_that_cover_nothing_are_refused_with_the_entry_named() {
        let problem = |entry: &str| origins(&[entry]).map_err(|e| std::mem::discriminant(&e)).err();
        let like = |e: OriginError| Some(std::mem::discriminant(&e));
        let entry = String::new;

        for bad in ["", "app.example.com", "://x", "1http://x", "Null"] {
            assert_eq!(problem(bad), like(OriginError::Scheme { entry: entry() }), "{bad}");
        }
        for bad in [
            "https://",
            "https://*",
            "https://*.",
            "https://a.*.com",
            "https://x/",
            "https://x/path",
            "https://a@b",
            "https://é.example",
        ] {
            assert_eq!(problem(bad), like(OriginError::Host { entry: entry() }), "{bad}");
        }
        for bad in ["https://x:", "https://x:0", "https://x:65536", "https://x:y", "https://x:-1"] {
            assert_eq!(problem(bad), like(OriginError::Port { entry: entry() }), "{bad}");
        }
    }
}
