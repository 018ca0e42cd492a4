//! What may be reached outside, as the settings say.

use crate::host::gucs;
use sea_mq_io::http::network::Network;

/// # Errors
/// Which setting cannot be understood. Nothing is reached then.
pub fn network() -> Result<Network, String> {
    Ok(Network {
        allowed: list("sea_mq.endpoint_allowed_networks", gucs::endpoint_allowed_networks())?,
        allow_http: gucs::endpoint_allow_http(),
        proxy: list("sea_mq.endpoint_proxy", gucs::endpoint_proxy())?.into_iter().next(),
        resolvers: list("sea_mq.endpoint_resolvers", gucs::endpoint_resolvers())?,
        ca_file: gucs::endpoint_ca_file(),
    })
}

fn list<T: std::str::FromStr>(name: &str, value: Option<String>) -> Result<Vec<T>, String> {
    let value = value.unwrap_or_default();
    let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| item.parse().map_err(|_| format!("{name}: \"{item}\" cannot be understood"))).collect()
}
