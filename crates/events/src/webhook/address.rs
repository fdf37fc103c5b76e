//! Which addresses are on the open internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks of IPv4 that are not globally routable, by the registry of special-purpose addresses.
const SPECIAL_V4: [([u8; 4], u32); 16] = [
    ([0, 0, 0, 0], 8),          // this network
    ([10, 0, 0, 0], 8),         // private
    ([100, 64, 0, 0], 10),      // behind the address translation of a carrier
    ([127, 0, 0, 0], 8),        // loopback
    ([169, 254, 0, 0], 16),     // link-local, with the metadata of clouds
    ([172, 16, 0, 0], 12),      // private
    ([192, 0, 0, 0], 24),       // assignments of the IETF
    ([192, 0, 2, 0], 24),       // documentation
    ([192, 88, 99, 0], 24),     // the former gateways of 6to4
    ([192, 168, 0, 0], 16),     // private
    ([198, 18, 0, 0], 15),      // benchmarks
    ([198, 51, 100, 0], 24),    // documentation
    ([203, 0, 113, 0], 24),     // documentation
    ([224, 0, 0, 0], 4),        // multicast
    ([240, 0, 0, 0], 4),        // reserved
    ([255, 255, 255, 255], 32), // broadcast
];

/// Networks inside of the global unicast addresses of IPv6 that are not globally routable. All
/// other special networks are outside of these addresses.
const SPECIAL_V6: [([u16; 3], u32); 4] = [
    ([0x2001, 0, 0], 23),         // assignments of the IETF, with Teredo and ORCHID
    ([0x2001, 0xdb8, 0], 32),     // documentation
    ([0x2620, 0x4f, 0x8000], 48), // sinks of the name system
    ([0x3fff, 0, 0], 20),         // documentation
];

/// The addresses of IPv6 that are given out for global unicast.
const GLOBAL_UNICAST: ([u16; 3], u32) = ([0x2000, 0, 0], 3);

/// Whether an address is on the open internet: neither this machine, nor a network around it, nor
/// one for a special purpose. An IPv4 address inside of an IPv6 address decides for it.
pub(crate) fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_global_v4(ip),
        IpAddr::V6(ip) => match inner(ip) {
            Some(inner) => is_global_v4(inner),
            None => {
                let special = SPECIAL_V6.iter().any(|network| is_in(ip, *network));
                is_in(ip, GLOBAL_UNICAST) && !special
            }
        },
    }
}

fn is_global_v4(ip: Ipv4Addr) -> bool {
    let is_in = |(network, length): &([u8; 4], u32)| {
        let difference = u32::from(ip) ^ u32::from_be_bytes(*network);
        difference.leading_zeros() >= *length
    };
    !SPECIAL_V4.iter().any(is_in)
}

fn is_in(ip: Ipv6Addr, ([a, b, c], length): ([u16; 3], u32)) -> bool {
    let network = Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0);
    (ip.to_bits() ^ network.to_bits()).leading_zeros() >= length
}

/// The IPv4 address to which packets for this address may go.
fn inner(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        // Compatible and mapped addresses.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(v4(high, low)),
        // NAT64.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all_are(texts: &[&str], global: bool) {
        for text in texts {
            assert_eq!(is_global(text.parse().unwrap()), global, "{text}");
        }
    }

    #[test]
    fn addresses_of_ipv4() {
        all_are(
            &[
                "0.0.0.0",
                "0.255.255.255",
                "10.0.0.0",
                "10.255.255.1",
                "10.255.255.255",
                "100.64.0.0",
                "100.127.255.255",
                "127.0.0.1",
                "127.255.255.255",
                "169.254.0.0",
                "169.254.169.254",
                "169.254.255.255",
                "172.16.0.0",
                "172.31.255.255",
                "192.0.0.0",
                "192.0.0.9",
                "192.0.0.170",
                "192.0.0.255",
                "192.0.2.1",
                "192.88.99.1",
                "192.168.0.0",
                "192.168.255.255",
                "198.18.0.0",
                "198.19.255.255",
                "198.51.100.7",
                "203.0.113.255",
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.1",
                "255.255.255.254",
                "255.255.255.255",
            ],
            false,
        );
        all_are(
            &[
                "1.0.0.0",
                "1.1.1.1",
                "8.8.8.8",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "169.253.255.255",
                "169.255.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "191.255.255.255",
                "192.0.1.0",
                "192.0.3.0",
                "192.167.255.255",
                "192.169.0.0",
                "198.17.255.255",
                "198.20.0.0",
                "198.51.99.255",
                "198.51.101.0",
                "203.0.112.255",
                "203.0.114.0",
                "223.255.255.255",
            ],
            true,
        );
    }

    #[test]
    fn addresses_of_ipv6() {
        all_are(
            &[
                "::",
                "::1",
                "::2",
                "1::",
                "64:ff9b:1::",
                "64:ff9b:1::808:808",
                "64:ff9b:2::8.8.8.8",
                "100::",
                "100::1",
                "100:0:0:1::",
                "1fff::1",
                "2001::",
                "2001::1",
                "2001:0:4136:e378::1",
                "2001:1::1",
                "2001:2::",
                "2001:3::1",
                "2001:10::",
                "2001:20::1",
                "2001:30::1",
                "2001:1ff:ffff::",
                "2001:db8::",
                "2001:db8:ffff::1",
                "2620:4f:8000::1",
                "3fff::",
                "3fff:fff:ffff::",
                "4000::",
                "5f00::1",
                "fc00::",
                "fd00:ec2::254",
                "fdff::1",
                "fe00::",
                "fe80::",
                "fe80::1",
                "febf::1",
                "fec0::1",
                "feff::1",
                "ff00::",
                "ff02::1",
                "ffff::",
            ],
            false,
        );
        all_are(
            &[
                "2000::",
                "2001:200::",
                "2001:4860:4860::8888",
                "2001:db7:ffff::",
                "2001:db9::",
                "2606:4700:4700::1111",
                "2620:4f:7fff::",
                "2620:4f:8001::",
                "2a00::1",
                "3ffe:ffff::1",
                "3fff:1000::",
            ],
            true,
        );
    }

    /// All addresses of IPv6 that lead to an address of IPv4.
    fn around(ip: Ipv4Addr) -> [IpAddr; 4] {
        let [a, b, c, d] = ip.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        [
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 1, 2, 3, 4, 5),
        ]
        .map(IpAddr::from)
    }

    #[test]
    fn an_inner_address_decides() {
        all_are(
            &[
                "::ffff:127.0.0.1",
                "::ffff:10.0.0.1",
                "::127.0.0.1",
                "::ffff:169.254.169.254",
                "64:ff9b::192.168.0.1",
                "2002:7f00:1::",
                "2002:a9fe:a9fe::1",
                "::ffff:0:0",
            ],
            false,
        );
        all_are(&["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"], true);
    }

    proptest! {
        #[test]
        fn every_way_to_an_address_is_judged_as_it_is(bits in any::<u32>()) {
            let ip = Ipv4Addr::from(bits);
            let global = is_global(ip.into());
            for around in around(ip) {
                prop_assert_eq!(is_global(around), global, "{}", around);
            }
        }

        #[test]
        fn what_the_standard_library_knows_is_refused(bits in any::<u32>(), wide in any::<u128>()) {
            let ip = Ipv4Addr::from(bits);
            let special = ip.is_private() || ip.is_loopback() || ip.is_link_local()
                || ip.is_multicast() || ip.is_documentation() || ip.is_unspecified();
            prop_assert!(!(special && is_global(ip.into())), "{}", ip);
            let ip = Ipv6Addr::from(wide);
            if is_global(ip.into()) {
                prop_assert_eq!(ip.segments()[0] & 0xe000, 0x2000, "{}", ip);
                prop_assert!(!ip.is_multicast() && !ip.is_unique_local(), "{}", ip);
            }
        }
    }
}
