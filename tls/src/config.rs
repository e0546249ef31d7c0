//! What an operator may set about certificates; the sections `[gateway.tls]`, `[logic.tls]` and the two `backplane_tls`.
//! Plain values; files are not looked at here but when the process starts and reloads (`server`, `client`).

use serde::{Deserialize, Serialize};

/// `[gateway.tls]` and `[logic.tls]`: a listener that proves who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate and the chain above it, leaf first; empty: no TLS.
    pub cert: String,
    /// PEM file with the key of the leaf.
    pub key: String,
}

/// `[gateway.backplane_tls]` and `[logic.backplane_tls]`: both ends prove who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MutualTlsConfig {
    /// PEM file with this end's certificate and the chain above it, leaf first; empty: no TLS.
    pub cert: String,
    /// PEM file with the key of the leaf.
    pub key: String,
    /// PEM file with the authorities that the other end's certificate must come from.
    pub ca: String,
}

impl TlsConfig {
    /// Whether TLS is wanted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.cert.is_empty()
    }

    /// What is missing, in the operator's words; `section` such as `gateway.tls`.
    pub fn problems(&self, section: &str, out: &mut Vec<String>) {
        missing(section, &[("cert", &self.cert), ("key", &self.key)], out);
    }
}

impl MutualTlsConfig {
    /// Whether TLS is wanted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.cert.is_empty()
    }

    /// What is missing, in the operator's words; `section` such as `logic.backplane_tls`.
    pub fn problems(&self, section: &str, out: &mut Vec<String>) {
        missing(section, &[("cert", &self.cert), ("key", &self.key), ("ca", &self.ca)], out);
    }
}

/// All or nothing: half a configuration would mean no TLS where some was meant.
fn missing(section: &str, files: &[(&str, &String)], out: &mut Vec<String>) {
    let set = files.iter().filter(|(_, path)| !path.is_empty()).map(|(name, _)| *name).collect::<Vec<_>>();
    if set.is_empty() || set.len() == files.len() {
        return;
    }
    for (name, _) in files.iter().filter(|(_, path)| path.is_empty()) {
        out.push(format!("{section}.{name} is not set, but {section}.{} is: TLS needs all of them", set.join(" and ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_configuration_is_named_by_what_is_missing() {
        let problems = |cert: &str, key: &str, ca: &str| {
            let mut out = Vec::new();
            MutualTlsConfig { cert: cert.into(), key: key.into(), ca: ca.into() }
                .problems("logic.backplane_tls", &mut out);
            out
        };

        assert_eq!(problems("", "", ""), Vec::<String>::new());
        assert_eq!(problems("c", "k", "a"), Vec::<String>::new());
        let one = problems("c", "k", "");
        assert_eq!(one.len(), 1);
        assert!(one[0].contains("logic.backplane_tls.ca is not set") && one[0].contains("cert and key"), "{one:?}");
        assert_eq!(problems("", "k", "").len(), 2);
    }
}
