//! Which addresses may be reached: those that are global unicast, whatever form they are written in, and what an administrator
//! lets in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Addresses that are not global unicast (IANA's registry of special-purpose addresses).
const SPECIAL_V4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// Of IPv6 one range is global unicast, and of that these are not, or carry an address of IPv4 that is looked at instead.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
const SPECIAL_V6: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// What is let in beside public addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    allowed: Vec<IpNet>,
}

impl Guard {
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether an address may be reached. An address that carries others may if all of them may.
    pub fn lets(&self, address: IpAddr) -> bool {
        let reached = reached(address);
        !reached.is_empty() && reached.into_iter().all(|address| is_public(address) || self.is_allowed(address))
    }

    fn is_allowed(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(&address))
    }
}

fn in_v4((network, bits): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    Ipv4Net::new(network, bits).is_ok_and(|network| network.contains(&address))
}

fn in_v6((network, bits): (Ipv6Addr, u8), address: Ipv6Addr) -> bool {
    Ipv6Net::new(network, bits).is_ok_and(|network| network.contains(&address))
}

/// Whether an address that carries no other one is global unicast.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.into_iter().any(|network| in_v4(network, address)),
        IpAddr::V6(address) => {
            in_v6(GLOBAL_V6, address) && !SPECIAL_V6.into_iter().any(|network| in_v6(network, address))
        }
    }
}

/// The addresses that a packet to this one comes to.
fn reached(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(v6) = address else { return vec![address] };
    let bytes = v6.octets();
    let v4 = |at: usize| IpAddr::V4(Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]));
    let inverted = |at: usize| IpAddr::V4(Ipv4Addr::new(!bytes[at], !bytes[at + 1], !bytes[at + 2], !bytes[at + 3]));
    match v6.segments() {
        // Unspecified and loopback, which look like IPv4-compatible ones.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => vec![address],
        // IPv4-mapped; IPv4-compatible; IPv4-translated (SIIT).
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => vec![v4(12)],
        // NAT64.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![v4(12)],
        // 6to4.
        [0x2002, ..] => vec![v4(2)],
        // Teredo: the server, and the client's address with its bits inverted.
        [0x2001, 0, ..] => vec![v4(4), inverted(12)],
        // ISATAP, in any network.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![address, v4(12)],
        _ => vec![address],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lets(address: &str) -> bool {
        Guard::default().lets(address.parse().unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    #[test]
    fn public_addresses_are_let_and_others_are_not() {
        for address in
            ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.0", "100.63.0.1", "2606:4700::1111", "2a00::1"]
        {
            assert!(lets(address), "{address}");
        }
        let forbidden = [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.1.1",
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
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "fec0::1",
            "2001:db8::1",
            "3fff::1",
            "2001:2::1",
            "2001:10::1",
            "100::1",
            "5f00::1",
            "64:ff9b:1::808:808",
            "4000::1",
            "1::1",
        ];
        for address in forbidden {
            assert!(!lets(address), "{address}");
        }
    }

    #[test]
    fn an_address_in_another_is_looked_at() {
        let inner = |v4: &str| {
            let [a, b, c, d] = v4.parse::<Ipv4Addr>().unwrap().octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            [
                format!("::ffff:{v4}"),
                format!("::{v4}"),
                format!("::ffff:0:{v4}"),
                format!("64:ff9b::{v4}"),
                format!("2002:{high:x}:{low:x}::1"),
                format!("2001:0:{high:x}:{low:x}:0:0:f7f7:f7f7"),
                format!("2001:0:808:808:0:0:{:x}:{:x}", !high, !low),
                format!("2a00::5efe:{v4}"),
                format!("2a00::200:5efe:{v4}"),
            ]
        };
        for address in inner("8.8.8.8") {
            assert!(lets(&address), "{address}");
        }
        for v4 in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.0.1", "224.0.0.1"] {
            for address in inner(v4) {
                assert!(!lets(&address), "{address}");
            }
        }
    }

    #[test]
    fn what_is_allowed_is_let_in_in_every_form_and_nothing_beside_it() {
        let guard = Guard::new(vec!["10.1.0.0/16".parse().unwrap(), "fd00:1::/32".parse().unwrap()]);
        let lets = |address: &str| guard.lets(address.parse().unwrap());
        assert!(["10.1.2.3", "::ffff:10.1.2.3", "fd00:1::7", "2002:a01:203::1", "8.8.8.8"].into_iter().all(lets));
        assert!(!["10.2.0.1", "127.0.0.1", "fd00:2::7", "::ffff:10.2.0.1", "::1"].into_iter().any(lets));
    }
}
