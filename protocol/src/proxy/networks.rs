//! Networks whose word is taken: `10.0.0.0/8`, `::1`. Few, so that a list is searched.

use std::net::IpAddr;

/// Why a network cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not one.
    #[error("{0:?} is no network: write an address such as 10.0.0.5, or one with a prefix such as 10.0.0.0/8")]
    NotOne(String),
    /// Bits behind the prefix, which are a typing error more often than not.
    #[error("{given:?} has bits behind its prefix: {meant} is the network")]
    LooseBits {
        /// As written.
        given: String,
        /// The network that holds it.
        meant: String,
    },
    /// Everyone.
    #[error("{0:?} is everyone: then any client could take any address; name the proxies' networks")]
    Everyone(String),
}

/// One network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Networks of trusted proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Box<[Network]>);

impl Networks {
    /// Reads a list.
    ///
    /// # Errors
    /// The first entry that is none.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, NetworkError> {
        texts.iter().map(|text| Network::parse(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether none is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of them. An IPv4 address may come as one mapped into IPv6.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn parse(text: &str) -> Result<Self, NetworkError> {
        let none = || NetworkError::NotOne(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| none())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| none())?,
            Some(_) => return Err(none()),
        };
        if prefix > bits {
            return Err(none());
        }
        if prefix == 0 {
            return Err(NetworkError::Everyone(text.to_owned()));
        }
        // A mapped network would never be met: addresses are compared in their IPv4 form.
        if address.to_canonical() != address {
            return Err(none());
        }
        let network = Self { address: masked(address, prefix), prefix };
        if network.address != address {
            let meant = format!("{}/{prefix}", network.address);
            return Err(NetworkError::LooseBits { given: text.to_owned(), meant });
        }
        Ok(network)
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

/// The first `prefix` bits; at least one, at most all.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & (u32::MAX << (32 - u32::from(prefix)))).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << (128 - u32::from(prefix)))).into()),
    }
}
