//! `logic.gateways`: where the gateways are.

use super::LogicConfig;

/// Most gateways one logic node serves: the width of the set kept for each room and user (see `fleet::interest`).
pub const GATEWAYS_MAX: usize = 128;

/// `host:port` of a gateway's URL.
///
/// # Errors
/// What the URL should look like.
pub fn authority_of(url: &str) -> Result<&str, &'static str> {
    const SHAPE: &str = "must be http://host:port or https://host:port";
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).ok_or(SHAPE)?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let parsed: http::uri::Authority = authority.parse().map_err(|_| SHAPE)?;
    if parsed.host().is_empty() || parsed.port_u16().is_none_or(|port| port == 0) || authority.contains('@') {
        return Err(SHAPE);
    }
    Ok(authority)
}

/// One spelling of a gateway's URL that stands for all that mean the same.
#[must_use]
pub fn plain(url: &str) -> String {
    url.strip_suffix('/').unwrap_or(url).to_ascii_lowercase()
}

/// A gateway's URL as a log may have it: a password that somebody wrote into it is not said again.
#[must_use]
pub fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}"),
        None => url.to_owned(),
    }
}

/// What contradicts itself in the list of gateways.
pub fn problems(config: &LogicConfig, out: &mut Vec<String>) {
    if config.gateways.len() > GATEWAYS_MAX {
        out.push(format!("logic.gateways: at most {GATEWAYS_MAX}"));
    }
    for (i, url) in config.gateways.iter().enumerate() {
        let shown = shown(url);
        if let Err(why) = authority_of(url) {
            out.push(format!("logic.gateways: {shown:?}: {why}"));
        }
        let (is_https, is_tls) = (url.starts_with("https://"), config.backplane_tls.is_on());
        if is_https && !is_tls {
            out.push(format!("logic.gateways: {shown:?} needs logic.backplane_tls: cert, key and ca of the backplane"));
        }
        if is_tls && url.starts_with("http://") {
            out.push(format!(
                "logic.gateways: {shown:?} must be https:// because logic.backplane_tls is set: pushes would travel in \
                 the clear"
            ));
        }
        let same = |other: &String| match (authority_of(other), authority_of(url)) {
            (Ok(a), Ok(b)) => a.eq_ignore_ascii_case(b),
            _ => other == url,
        };
        if config.gateways[..i].iter().any(same) {
            out.push(format!("logic.gateways: {shown:?} is listed twice"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_with_host_and_port_are_gateways() {
        assert_eq!(authority_of("http://10.0.0.1:8002"), Ok("10.0.0.1:8002"));
        assert_eq!(authority_of("http://[::1]:8002/"), Ok("[::1]:8002"));
        assert_eq!(authority_of("https://gateway.internal:8002"), Ok("gateway.internal:8002"));
        for bad in ["10.0.0.1:8002", "ftp://a:1", "http://a", "http://a:0", "http://a:1/x", "http://u@a:1", "http://:1"]
        {
            assert!(authority_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_said_again() {
        for url in ["http://root:hunter2@10.0.0.1:8002", "root:hunter2@10.0.0.1", "http://root:hunter2@x@10.0.0.1:1/"] {
            let mut out = Vec::new();
            problems(&LogicConfig { gateways: vec![url.into()], ..LogicConfig::default() }, &mut out);
            assert!(out[0].contains("@10.0.0.1") && !out[0].contains("hunter2"), "{out:?}");
        }
    }
}
