//! The network between several brokers: a proxy for each direction in which one of them connects to another.

use harness::Port;

use crate::proxy::{Proxy, Weather};

pub struct Routes {
    /// Where each broker listens for the others.
    ports: Vec<Port>,
    /// Who connects, to whom, and through what.
    proxies: Vec<(usize, usize, Proxy)>,
}

impl Routes {
    /// # Panics
    /// When no port can be listened on.
    pub async fn start(brokers: usize) -> Self {
        let ports: Vec<Port> = (0..brokers).map(|_| Port::claim()).collect();
        let mut proxies = Vec::new();
        for from in 0..ports.len() {
            for (to, port) in ports.iter().enumerate().filter(|(to, _)| *to != from) {
                proxies.push((from, to, Proxy::start(port.number()).await));
            }
        }
        Self { ports, proxies }
    }

    /// What a broker's configuration says of the others. Brokers tell each other where they are, which would be a way
    /// around the proxies: what they say leads nowhere.
    pub fn configuration(&self, from: usize) -> String {
        let own = self.proxies.iter().filter(|(start, ..)| *start == from);
        let routes: Vec<String> =
            own.map(|(_, _, proxy)| format!("\"nats-route://127.0.0.1:{}\"", proxy.port())).collect();
        let port = self.ports[from].number();
        // Clients are not to learn of ways around their proxies either.
        format!(
            "cluster {{ name: \"test\", listen: \"127.0.0.1:{port}\", advertise: \"127.0.0.1:1\", no_advertise: true, routes: [{}] }}",
            routes.join(", ")
        )
    }

    /// What lies between a broker and the others.
    pub fn set_weather(&self, broker: usize, weather: Weather) {
        let touched = self.proxies.iter().filter(|(from, to, _)| *from == broker || *to == broker);
        touched.for_each(|(_, _, proxy)| proxy.set(weather));
    }
}
