//! Making a connection: addresses, credentials, TLS, and the proof that JetStream answers.

use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr, ServerError, Subscriber};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::api::Api;
use super::{errors, lease};
use sea_mq_model::broker::{BrokerConfig, Fault, FaultKind, ServerInfo};
use sea_mq_model::domain::address::{Address, Login};

/// How often an otherwise silent connection is tried. The library gives up after the second ping without an answer.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Room in a subscription's channel. The library drops what finds no room, and a dropped ack would look like a lost
/// message, so this is far more than what can be on its way. Memory is used for what is there, not for the room.
const SUBSCRIPTION_CAPACITY: usize = 1 << 20;

/// A live connection.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) api: Api,
    /// All answers to publishes.
    pub(super) acks: Subscriber,
    /// What the subjects of those answers begin with.
    pub(super) reply_prefix: String,
    /// Relays that ask whether this one lives.
    pub(super) callers: Option<Subscriber>,
    pub(super) events: UnboundedReceiver<LinkEvent>,
    pub(super) server: ServerInfo,
}

/// What the connection says of itself.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// The server complained of something.
    Complaint(ServerError),
    /// The connection is gone.
    Lost,
}

/// Connects to the first address that lets us in, and makes sure that JetStream answers there.
pub(super) async fn connect(config: &BrokerConfig) -> Result<Link, Fault> {
    let addresses = config.urls.addresses().map_err(settings)?;
    let mut worst: Option<Fault> = None;
    for address in &addresses {
        match connect_to(config, address).await {
            Ok(link) => return Ok(link),
            // Of several reasons, the one that somebody can do something about is told.
            Err(fault)
                if worst
                    .as_ref()
                    .is_none_or(|worst| matches!(worst.kind, FaultKind::Unreachable | FaultKind::Isolated)) =>
            {
                worst = Some(fault)
            }
            Err(_) => {}
        }
    }
    Err(worst.unwrap_or_else(|| settings("no NATS server is configured")))
}

async fn connect_to(config: &BrokerConfig, target: &Address) -> Result<Link, Fault> {
    let (sender, mut events) = unbounded_channel();
    let options = watched(options(config, target)?, &sender);
    let address = target.to_string();
    // Without the login: the library ignores it.
    let scheme = if target.tls { "tls" } else { "nats" };
    let server = ServerAddr::from_str(&format!("{scheme}://{address}"))
        .map_err(|error| settings(format!("{address} is not an address of a NATS server: {error}")))?;
    let timed_out = || Fault::new(FaultKind::Unreachable, format!("{address}: timed out"));

    // The library bounds each resolved address but not the lookup; twice the time leaves room for a second address.
    let connecting = tokio::time::timeout(config.connect_timeout * 2, options.connect(server));
    let client = connecting.await.map_err(|_| timed_out())?.map_err(|error| connect_fault(config, &address, &error))?;

    let inbox = client.new_inbox();
    let subscribing = client.subscribe(format!("{inbox}.*")).await;
    let acks = subscribing.map_err(|error| Fault::new(FaultKind::Server, errors::causes(&error)))?;
    let callers = match config.relay {
        Some(relay) => client.subscribe(lease::address(relay)).await.ok(),
        None => None,
    };
    let api = Api::new(client.clone(), config.jetstream_domain.as_deref(), config.connect_timeout);
    prove_jetstream(&api, &mut events).await?;
    // By now the server has said whether the account has limits of its own, if it says so at all.
    let info = client.server_info();
    let server = ServerInfo { name: info.server_name, version: info.version, address, max_payload: info.max_payload };
    Ok(Link { client, api, acks, reply_prefix: format!("{inbox}."), callers, events, server })
}

/// Asks JetStream for the account. A complaint or a loss in the meantime is the better reason than the missing answer.
async fn prove_jetstream(api: &Api, events: &mut UnboundedReceiver<LinkEvent>) -> Result<(), Fault> {
    tokio::select! {
        biased;
        answer = api.prove() => answer.map_err(Fault::from),
        event = events.recv() => Err(match event {
            Some(LinkEvent::Complaint(error)) => Fault::new(errors::server_error_kind(&error), error.to_string()),
            Some(LinkEvent::Lost) | None => Fault::new(FaultKind::Unreachable, "the server closed the connection"),
        }),
    }
}

/// Adds the callbacks through which the session learns of its end.
///
/// The library means to reconnect by itself and cannot be told not to: `max_reconnects` begins anew after each success.
/// But it asks which server to connect to: once for the first connection, and again only when that is lost. The second
/// question is never answered; it is the sign that the session is over, and the runtime that waits for the answer is
/// dropped with it. (The `Disconnected` event is no such sign: it is lost if too many others are queued.)
fn watched(options: ConnectOptions, sender: &UnboundedSender<LinkEvent>) -> ConnectOptions {
    let (complaints, losses) = (sender.clone(), sender.clone());
    let asked = AtomicBool::new(false);
    options
        .event_callback(move |event| {
            // A closed channel means that the session is over, and with it the interest in events.
            let _ = match event {
                Event::ServerError(error) => complaints.send(LinkEvent::Complaint(error)),
                Event::Closed => complaints.send(LinkEvent::Lost),
                _ => Ok(()),
            };
            std::future::ready(())
        })
        .reconnect_to_server_callback(move |_, _| {
            let again = asked.swap(true, Ordering::Relaxed);
            if again {
                let _ = losses.send(LinkEvent::Lost);
            }
            async move { if again { std::future::pending().await } else { None } }
        })
}

fn options(config: &BrokerConfig, target: &Address) -> Result<ConnectOptions, Fault> {
    let options = ConnectOptions::new()
        .name(&config.client_name)
        .connection_timeout(config.connect_timeout)
        .request_timeout(Some(config.connect_timeout))
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .ignore_discovered_servers()
        .retain_servers_order()
        .require_tls(config.tls_required);
    tls(credentials(options, config, target)?, config)
}

/// Logs in by exactly one method; what a URL says comes last.
fn credentials(options: ConnectOptions, config: &BrokerConfig, target: &Address) -> Result<ConnectOptions, Fault> {
    let BrokerConfig { credentials_file, nkey_file, user, password_file, token_file, .. } = config;
    let methods = [credentials_file.is_some(), nkey_file.is_some(), user.is_some(), token_file.is_some()];
    if methods.iter().filter(|given| **given).count() > 1 {
        return Err(settings("of credentials file, nkey file, user and token file only one can be given"));
    }
    if let Some(path) = credentials_file {
        let text = read(path)?;
        return options.credentials(&text).map_err(|error| settings(format!("{}: {error}", path.display())));
    }
    if let Some(path) = nkey_file {
        return Ok(options.nkey(first_line(path)?));
    }
    if let Some(path) = token_file {
        return Ok(options.token(first_line(path)?));
    }
    Ok(match (user, password_file, &target.login) {
        (Some(user), Some(path), _) => options.user_and_password(user.clone(), first_line(path)?),
        (Some(_), None, _) => return Err(settings("a user is given without a password file")),
        (None, Some(_), _) => return Err(settings("a password file is given without a user")),
        (None, None, Some(Login::Password(user, password))) => {
            options.user_and_password(user.clone(), password.clone())
        }
        (None, None, Some(Login::Token(token))) => options.token(token.clone()),
        (None, None, None) => options,
    })
}

fn tls(options: ConnectOptions, config: &BrokerConfig) -> Result<ConnectOptions, Fault> {
    let mut options = options;
    if let Some(path) = &config.tls_ca_file {
        // Read now, so that a missing file is told as such and not as a failed handshake.
        read(path)?;
        options = options.add_root_certificates(path.clone());
    }
    match (&config.tls_cert_file, &config.tls_key_file) {
        (Some(cert), Some(key)) => {
            read(cert)?;
            read(key)?;
            Ok(options.add_client_certificate(cert.clone(), key.clone()))
        }
        (None, None) => Ok(options),
        _ => Err(settings("client certificate and key must be given together")),
    }
}

fn connect_fault(config: &BrokerConfig, address: &str, error: &async_nats::ConnectError) -> Fault {
    // The library says so when the seed is none; the server has not been asked.
    match (&config.nkey_file, error.kind()) {
        (Some(path), async_nats::ConnectErrorKind::Authentication) => {
            settings(format!("{}: not an nkey seed", path.display()))
        }
        _ => errors::connect_fault(address, error),
    }
}

fn read(path: &Path) -> Result<String, Fault> {
    let unreadable = |error: io::Error| settings(format!("cannot read {}: {error}", path.display()));
    std::fs::read_to_string(path).map_err(unreadable)
}

fn first_line(path: &Path) -> Result<String, Fault> {
    let text = read(path)?;
    let line = text.lines().next().map(str::trim).filter(|line| !line.is_empty());
    line.map(str::to_owned).ok_or_else(|| settings(format!("{} is empty", path.display())))
}

fn settings(message: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Settings, message)
}
