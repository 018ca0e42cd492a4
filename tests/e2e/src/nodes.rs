//! Several nats-servers that are one cluster.

use crate::Port;
use crate::broker::BrokerOptions;

/// The options of so many servers of one cluster, called `n0`, `n1`, …, and the ports of their routes, which are theirs while
/// these values live. The servers are to be launched all before one of them is waited for.
pub fn clustered(count: usize) -> (Vec<BrokerOptions>, Vec<Port>) {
    let routes: Vec<Port> = (0..count).map(|_| Port::claim()).collect();
    let urls: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{}\"", port.number())).collect();
    let urls = urls.join(", ");
    let options = |(number, port): (usize, &Port)| BrokerOptions {
        configuration: format!("cluster {{ name: test, listen: \"127.0.0.1:{}\", routes: [{urls}] }}\n", port.number()),
        server_name: Some(format!("n{number}")),
        ..BrokerOptions::default()
    };
    (routes.iter().enumerate().map(options).collect(), routes)
}
