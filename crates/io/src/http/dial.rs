//! The one way to a host outside: its name is resolved, every address that it stands for is looked at, and the connection goes to
//! one that was. If one of them must not be reached, none is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use sea_mq_model::deliver::outcome::FaultKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::{Host, Url};

use super::fault::Fault;
use super::guard::Guard;
use super::network::Network;

/// Bytes of a proxy's answer that are read.
const PROXY_ANSWER: usize = 8192;

pub struct Dialer {
    guard: Guard,
    resolver: TokioResolver,
    proxy: Option<Url>,
}

impl Dialer {
    /// # Errors
    /// If the system's list of name servers cannot be read.
    pub fn new(network: &Network) -> Result<Self, Fault> {
        let failed = |error| Fault::new(FaultKind::Dns, format!("no name server: {error}"));
        let provider = TokioRuntimeProvider::default();
        let mut builder: ResolverBuilder<_> = if network.resolvers.is_empty() {
            TokioResolver::builder(provider).map_err(failed)?
        } else {
            TokioResolver::builder_with_config(config(&network.resolvers), provider)
        };
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.timeout = Duration::from_secs(2);
        options.attempts = 2;
        let resolver = builder.build().map_err(failed)?;
        Ok(Self { guard: network.guard(), resolver, proxy: network.proxy.clone() })
    }

    /// A connection to a host, within `limit`.
    ///
    /// # Errors
    /// `Blocked` if any address of the host must not be reached; else why none could be.
    pub async fn dial(&self, host: &Host<&str>, port: u16, limit: Duration) -> Result<TcpStream, Fault> {
        let timed_out = |_| Fault::new(FaultKind::Timeout, format!("no connection within {} ms", limit.as_millis()));
        tokio::time::timeout(limit, self.connect(host, port)).await.map_err(timed_out)?
    }

    async fn connect(&self, host: &Host<&str>, port: u16) -> Result<TcpStream, Fault> {
        let addresses = self.vetted(host).await?;
        let mut last = Fault::new(FaultKind::Dns, format!("{host} has no address"));
        for address in addresses {
            let address = SocketAddr::new(address, port);
            let connected = match &self.proxy {
                None => direct(address).await,
                Some(proxy) => through(proxy, address).await,
            };
            match connected {
                Ok(stream) => return Ok(stream),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// The addresses of a host, each of which may be reached.
    ///
    /// # Errors
    /// `Blocked` if one of them must not be, `Dns` if there is none.
    pub async fn vetted(&self, host: &Host<&str>) -> Result<Vec<IpAddr>, Fault> {
        let addresses = match host {
            Host::Ipv4(address) => vec![IpAddr::V4(*address)],
            Host::Ipv6(address) => vec![IpAddr::V6(*address)],
            Host::Domain(name) => self.resolve(name).await?,
        };
        match addresses.iter().find(|address| !self.guard.lets(**address)) {
            Some(address) => {
                Err(Fault::new(FaultKind::Blocked, format!("{host} stands for {address}, which must not be reached")))
            }
            None if addresses.is_empty() => Err(Fault::new(FaultKind::Dns, format!("{host} has no address"))),
            None => Ok(addresses),
        }
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Fault> {
        // Names with a dot are looked up as they are, whatever domains the system searches.
        let whole = if name.contains('.') && !name.ends_with('.') { format!("{name}.") } else { name.to_owned() };
        match self.resolver.lookup_ip(whole).await {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) => Err(Fault::new(FaultKind::Dns, format!("{name} cannot be resolved: {error}"))),
        }
    }
}

fn config(servers: &[SocketAddr]) -> ResolverConfig {
    let server = |server: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    };
    ResolverConfig::from_name_servers(servers.iter().map(server).collect())
}

async fn direct(address: SocketAddr) -> Result<TcpStream, Fault> {
    let failed = |error| Fault::new(FaultKind::Connect, format!("{address}: {error}"));
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    // A request is written in one piece.
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// Asks a proxy to connect to an address. It gets no name, so it cannot resolve one otherwise.
async fn through(proxy: &Url, address: SocketAddr) -> Result<TcpStream, Fault> {
    let failed = |what: String| Fault::new(FaultKind::Connect, format!("proxy: {what}"));
    let host = proxy.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = proxy.port_or_known_default().unwrap_or(3128);
    let stream = TcpStream::connect((host, port)).await.map_err(|error| failed(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
    let mut stream = stream;
    let request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the head is the endpoint's.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= PROXY_ANSWER {
            return Err(failed("its answer does not end".into()));
        }
        answer.push(stream.read_u8().await.map_err(|error| failed(error.to_string()))?);
    }
    let status = String::from_utf8_lossy(&answer).split_whitespace().nth(1).unwrap_or_default().to_owned();
    if status == "200" { Ok(stream) } else { Err(failed(format!("it answers {status} to CONNECT {address}"))) }
}
