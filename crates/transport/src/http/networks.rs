//! Networks of IP addresses, such as those of the proxies in front.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use stentor_wire::headers::quoted;

/// Networks of IP addresses. The default is none.
///
/// ```
/// use stentor::http::Networks;
///
/// # fn main() -> Result<(), stentor::http::NetworkError> {
/// let proxies = Networks::new(["10.0.0.0/8", "fd00::/8", "192.0.2.7"])?;
/// assert!(proxies.contains([10, 1, 2, 3].into()));
/// assert!(!proxies.contains([192, 0, 2, 8].into()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// A text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{found}' is no network; write an IP address, or a prefix of it such as 10.0.0.0/8")]
pub struct NetworkError {
    found: String,
}

impl Networks {
    /// These networks. Each is an IP address, or an address and the length of its prefix:
    /// `10.0.0.7`, `10.0.0.0/8`, `fd00::/8`.
    ///
    /// # Errors
    ///
    /// [`NetworkError`] for a text that is neither.
    pub fn new<I>(networks: I) -> Result<Self, NetworkError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        networks
            .into_iter()
            .map(|network| parse(network.as_ref()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether an address is in one of them. An IPv4 address that is written as an IPv6 one
    /// (`::ffff:10.0.0.7`) counts as the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse(text: &str) -> Result<IpNet, NetworkError> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text.parse::<IpNet>().ok(),
    };
    let network = network.ok_or_else(|| NetworkError { found: quoted(text) })?;
    // The addresses that are looked for are canonical, too.
    let canonical = match (network.addr().to_canonical(), network.prefix_len().checked_sub(96)) {
        (IpAddr::V4(address), Some(length)) if network.addr().is_ipv6() => {
            Ipv4Net::new(address, length).ok().map(IpNet::V4)
        }
        _ => None,
    };
    Ok(canonical.unwrap_or(network))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        Networks::new([network]).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn networks_contain_what_begins_as_they_do() {
        for (network, inside, outside) in [
            ("10.0.0.7", "10.0.0.7", "10.0.0.8"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.9.8.7/8", "10.255.0.1", "11.0.0.1"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("::1", "::1", "::2"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::10.1.1.1"),
            ("::ffff:10.0.0.0/104", "10.1.1.1", "11.1.1.1"),
            ("::ffff:10.0.0.7", "10.0.0.7", "10.0.0.8"),
        ] {
            assert!(contains(network, inside), "{network} {inside}");
            assert!(!contains(network, outside), "{network} {outside}");
        }
        assert!(!Networks::default().contains([127, 0, 0, 1].into()));
    }

    #[test]
    fn what_is_no_network_is_an_error() {
        for text in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "/8",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "localhost",
            "10.0.0.0/8 ",
            " 10.0.0.1",
            "10.0.0.1:80",
            "[::1]",
            "10.0.0.0/255.0.0.0",
            "010.0.0.1",
            "*",
        ] {
            let error = Networks::new([text]).unwrap_err();
            assert!(error.to_string().contains("is no network"), "{text}");
            assert!(Networks::new(["::1", text]).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_network_or_an_error(text in "[0-9a-f.:/]{0,20}|\\PC{0,12}") {
            let _ = Networks::new([text]);
        }

        #[test]
        fn a_network_is_its_prefix(v4: u32, v6: u128, other4: u32, other6: u128, length in 0..=128_u8) {
            let short = length.min(32);
            let same = v4.checked_shr((32 - short).into()) == other4.checked_shr((32 - short).into());
            let network = format!("{}/{short}", Ipv4Addr::from(v4));
            prop_assert_eq!(contains(&network, &Ipv4Addr::from(other4).to_string()), same);
            prop_assert!(contains(&network, &Ipv4Addr::from(v4).to_string()));
            let shift = u32::from(128 - length);
            let is_v4 = Ipv6Addr::from(other6).to_ipv4_mapped().is_some();
            let same = v6.checked_shr(shift) == other6.checked_shr(shift) && !is_v4;
            let network = format!("{}/{length}", Ipv6Addr::from(v6));
            prop_assert_eq!(contains(&network, &Ipv6Addr::from(other6).to_string()), same);
        }
    }
}
