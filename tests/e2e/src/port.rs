use std::net::{TcpListener, UdpSocket};
use std::ops::Range;

use rand::Rng;

/// Below the ports that the kernel gives to outgoing connections, so that a server can be stopped and started again.
const PORTS: Range<u16> = 15_000..32_000;

/// A TCP port of 127.0.0.1 on which nobody listens when it is found. It is not found again, by no process, while this
/// value lives.
pub struct Port {
    number: u16,
    /// The UDP socket of that number, which only one process can have.
    _claim: UdpSocket,
}

impl Port {
    /// # Panics
    /// When no port is free, or the process may open no more sockets.
    pub fn claim() -> Self {
        let mut rng = rand::rng();
        let mut claims = (0..PORTS.len()).filter_map(|_| {
            let number = rng.random_range(PORTS);
            let claim = UdpSocket::bind(("127.0.0.1", number)).ok()?;
            TcpListener::bind(("127.0.0.1", number)).ok()?;
            Some(Self { number, _claim: claim })
        });
        claims.next().expect("no port is free")
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}
