//! Settings. `docs/settings.md` lists them for users; the descriptions here are what `pg_settings` shows.

use std::ffi::{CStr, CString};
use std::path::PathBuf;
use std::time::Duration;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum, pg_sys};

use super::cause;
use super::roles::HANDLERS;
use crate::sys::versions;
use sea_mq_model::broker::BrokerConfig;
use sea_mq_model::domain::address::Urls;
use sea_mq_model::domain::event::Defaults;
use sea_mq_model::domain::policy::ContractPolicy;

/// What to do when the broker has lost messages that it had acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum OnStreamLoss {
    #[name = c"republish"]
    Republish,
    #[name = c"pause"]
    Pause,
}

/// What emit does about an event that breaks its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum Contracts {
    #[name = c"off"]
    Off,
    #[name = c"warn"]
    Warn,
    #[name = c"enforce"]
    Enforce,
}

type Text = GucSetting<Option<CString>>;

static CONTEXT: Text = Text::new(None);
static CORRELATION_ID: Text = Text::new(None);
static CAUSATION_ID: Text = Text::new(None);
static TRACEPARENT: Text = Text::new(None);
static ACTOR: Text = Text::new(None);
static NATS_URL: Text = Text::new(None);
static NATS_USER: Text = Text::new(None);
static NATS_PASSWORD_FILE: Text = Text::new(None);
static NATS_TOKEN_FILE: Text = Text::new(None);
static NATS_CREDENTIALS_FILE: Text = Text::new(None);
static NATS_NKEY_FILE: Text = Text::new(None);
static NATS_TLS_CA_FILE: Text = Text::new(None);
static NATS_TLS_CERT_FILE: Text = Text::new(None);
static NATS_TLS_KEY_FILE: Text = Text::new(None);
static NATS_JETSTREAM_DOMAIN: Text = Text::new(None);
static NATS_TLS: GucSetting<bool> = GucSetting::<bool>::new(false);
static NATS_TLS_FIRST: GucSetting<bool> = GucSetting::<bool>::new(false);
static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static AUTO_CREATE_STREAMS: GucSetting<bool> = GucSetting::<bool>::new(true);
static POLL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(1000);
static IDLE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(600_000);
static CONNECT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5000);
static ACK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static RECONNECT_MAX: GucSetting<i32> = GucSetting::<i32>::new(15_000);
static SHUTDOWN_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(2000);
static RETENTION: GucSetting<i32> = GucSetting::<i32>::new(86_400);
static SLOT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1024 * 1024);
static MAX_MESSAGE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1024 * 1024);
static MAX_OUTBOX_SIZE: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_IN_FLIGHT: GucSetting<i32> = GucSetting::<i32>::new(8192);
static HANDLER_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(30_000);
static HANDLER_PROCESSES: GucSetting<i32> = GucSetting::<i32>::new(4);
static FETCH_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(64);
static RETRY_DELAY: GucSetting<i32> = GucSetting::<i32>::new(500);
static RETRY_DELAY_MAX: GucSetting<i32> = GucSetting::<i32>::new(300_000);
static INBOX_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(604_800);
static DLQ_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(2_592_000);
static DELIVERY_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(604_800);
static ENDPOINT_BACKLOG_AGE: GucSetting<i32> = GucSetting::<i32>::new(604_800);
static ENDPOINT_BACKLOG_SIZE: GucSetting<i32> = GucSetting::<i32>::new(10 * 1024);
static ENDPOINT_ALLOW_HTTP: GucSetting<bool> = GucSetting::<bool>::new(false);
static ENDPOINT_ALLOWED_NETWORKS: Text = Text::new(None);
static ENDPOINT_PROXY: Text = Text::new(None);
static ENDPOINT_RESOLVERS: Text = Text::new(None);
static ENDPOINT_CA_FILE: Text = Text::new(None);
static SECRET_KEY_FILE: Text = Text::new(None);
static CONTRACTS: GucSetting<Contracts> = GucSetting::<Contracts>::new(Contracts::Off);
static MAX_DATABASES: GucSetting<i32> = GucSetting::<i32>::new(64);
static ON_STREAM_LOSS: GucSetting<OnStreamLoss> = GucSetting::<OnStreamLoss>::new(OnStreamLoss::Republish);

/// Defines all settings. Called once per process, from `_PG_init`.
pub fn define() {
    define_session();
    define_broker();
    define_relay();
    define_storage();
    define_inbox();
    define_endpoints();
    define_server();
    versions::reserve_settings(c"sea_mq");
}

fn text(name: &'static CStr, short: &'static CStr, setting: &'static Text, context: GucContext, flags: GucFlags) {
    GucRegistry::define_string_guc(name, short, c"", setting, context, flags);
}

fn number(
    name: &'static CStr,
    short: &'static CStr,
    setting: &'static GucSetting<i32>,
    least: i32,
    most: i32,
    unit: GucFlags,
) {
    // Superuser settings, not SIGHUP ones, so that ALTER DATABASE … SET can give each database its own.
    GucRegistry::define_int_guc(name, short, c"", setting, least, most, GucContext::Suset, unit);
}

fn define_session() {
    let session = [
        (c"sea_mq.context", c"Bounded context of events that are emitted without one.", &CONTEXT),
        (c"sea_mq.correlation_id", c"Correlation id of events that are emitted without one.", &CORRELATION_ID),
        (c"sea_mq.causation_id", c"Causation id of events that are emitted without one.", &CAUSATION_ID),
        (c"sea_mq.traceparent", c"W3C trace context of events that are emitted without one.", &TRACEPARENT),
        (c"sea_mq.actor", c"Whom the session claims to act for, when it decides about dead letters.", &ACTOR),
    ];
    for (name, short, setting) in session {
        text(name, short, setting, GucContext::Userset, GucFlags::default());
    }
    // Not the session's to choose: a contract binds those who emit.
    GucRegistry::define_enum_guc(
        c"sea_mq.contracts",
        c"Whether emit checks events against their registered contracts.",
        c"",
        &CONTRACTS,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// Where the broker is and how to log in: shown to superusers alone.
static BROKER: [(&CStr, &CStr, &GucSetting<Option<CString>>); 10] = [
    (c"sea_mq.nats_url", c"Comma-separated NATS URLs; empty: no broker.", &NATS_URL),
    (c"sea_mq.nats_user", c"User name at the broker.", &NATS_USER),
    (c"sea_mq.nats_password_file", c"File whose first line is the password.", &NATS_PASSWORD_FILE),
    (c"sea_mq.nats_token_file", c"File whose first line is the token.", &NATS_TOKEN_FILE),
    (c"sea_mq.nats_credentials_file", c"NATS .creds file.", &NATS_CREDENTIALS_FILE),
    (c"sea_mq.nats_nkey_file", c"File whose first line is an nkey seed.", &NATS_NKEY_FILE),
    (c"sea_mq.nats_tls_ca_file", c"PEM file of the authorities to trust.", &NATS_TLS_CA_FILE),
    (c"sea_mq.nats_tls_cert_file", c"PEM file of the client certificate.", &NATS_TLS_CERT_FILE),
    (c"sea_mq.nats_tls_key_file", c"PEM file of the client certificate's key.", &NATS_TLS_KEY_FILE),
    (c"sea_mq.nats_jetstream_domain", c"JetStream domain; empty: the default one.", &NATS_JETSTREAM_DOMAIN),
];

/// Names and values of the settings of the broker's connection.
pub fn broker_texts() -> impl Iterator<Item = (&'static str, String)> {
    BROKER.iter().filter_map(|(name, _, setting)| {
        let value = setting.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        name.to_str().ok().map(|name| (name, value))
    })
}

fn define_broker() {
    for (name, short, setting) in BROKER {
        text(name, short, setting, GucContext::Suset, GucFlags::SUPERUSER_ONLY);
    }
    GucRegistry::define_bool_guc(
        c"sea_mq.nats_tls",
        c"Requires TLS whatever the URL says.",
        c"",
        &NATS_TLS,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"sea_mq.nats_tls_first",
        c"Begins with the TLS handshake, for servers with handshake_first.",
        c"",
        &NATS_TLS_FIRST,
        GucContext::Suset,
        GucFlags::default(),
    );
    let ms = GucFlags::UNIT_MS;
    number(
        c"sea_mq.connect_timeout",
        c"How long to wait for a connection or an API answer.",
        &CONNECT_TIMEOUT,
        100,
        600_000,
        ms,
    );
    number(
        c"sea_mq.ack_timeout",
        c"How long a publish may wait for its acknowledgement.",
        &ACK_TIMEOUT,
        100,
        600_000,
        ms,
    );
    number(c"sea_mq.reconnect_max", c"Longest pause between attempts to connect.", &RECONNECT_MAX, 100, 3_600_000, ms);
}

fn define_relay() {
    GucRegistry::define_bool_guc(
        c"sea_mq.enabled",
        c"Whether the relay publishes.",
        c"",
        &ENABLED,
        GucContext::Suset,
        GucFlags::default(),
    );
    let ms = GucFlags::UNIT_MS;
    number(
        c"sea_mq.poll_interval",
        c"How often the relay looks for events that no commit announced.",
        &POLL_INTERVAL,
        10,
        600_000,
        ms,
    );
    number(
        c"sea_mq.idle_timeout",
        c"How long a relay, and a consumer without subscriptions, stays with nothing to do; 0: for ever.",
        &IDLE_TIMEOUT,
        0,
        86_400_000,
        ms,
    );
    number(
        c"sea_mq.shutdown_timeout",
        c"How long a stopping relay waits for acknowledgements.",
        &SHUTDOWN_TIMEOUT,
        0,
        60_000,
        ms,
    );
    let none = GucFlags::default();
    number(
        c"sea_mq.max_in_flight",
        c"Messages of one stream that may wait for their acknowledgement.",
        &MAX_IN_FLIGHT,
        1,
        100_000,
        none,
    );
    GucRegistry::define_enum_guc(
        c"sea_mq.on_stream_loss",
        c"What to do when the broker has lost acknowledged messages.",
        c"",
        &ON_STREAM_LOSS,
        GucContext::Suset,
        GucFlags::default(),
    );
}

fn define_storage() {
    GucRegistry::define_bool_guc(
        c"sea_mq.auto_create_streams",
        c"Whether the first event of a context creates its stream.",
        c"",
        &AUTO_CREATE_STREAMS,
        GucContext::Suset,
        GucFlags::default(),
    );
    number(c"sea_mq.retention", c"How long published events are kept.", &RETENTION, 1, 315_360_000, GucFlags::UNIT_S);
    number(
        c"sea_mq.slot_size",
        c"Size at which the log moves on to its next slot.",
        &SLOT_SIZE,
        64,
        i32::MAX,
        GucFlags::UNIT_KB,
    );
    number(
        c"sea_mq.max_outbox_size",
        c"Size of what is not published at which emit refuses more; 0: none.",
        &MAX_OUTBOX_SIZE,
        0,
        i32::MAX,
        GucFlags::UNIT_MB,
    );
    number(
        c"sea_mq.max_message_size",
        c"Largest message that emit accepts, headers included.",
        &MAX_MESSAGE_SIZE,
        1024,
        64 * 1024 * 1024,
        GucFlags::UNIT_BYTE,
    );
}

fn define_inbox() {
    let ms = GucFlags::UNIT_MS;
    number(c"sea_mq.handler_timeout", c"Longest run of a handler.", &HANDLER_TIMEOUT, 1, 86_400_000, ms);
    let processes =
        c"Processes that handle messages beside the consumer, of one database; 0: the consumer handles all itself.";
    number(c"sea_mq.handler_processes", processes, &HANDLER_PROCESSES, 0, HANDLERS as i32, GucFlags::default());
    number(
        c"sea_mq.retry_delay",
        c"Pause before the second attempt to handle a message; doubled before each further one.",
        &RETRY_DELAY,
        0,
        86_400_000,
        ms,
    );
    number(
        c"sea_mq.retry_delay_max",
        c"Longest pause between attempts to handle a message.",
        &RETRY_DELAY_MAX,
        0,
        86_400_000,
        ms,
    );
    number(
        c"sea_mq.fetch_memory",
        c"Memory for messages that the consumer has fetched and not handled, over all subscriptions.",
        &FETCH_MEMORY,
        1,
        1024 * 1024,
        GucFlags::UNIT_MB,
    );
    let s = GucFlags::UNIT_S;
    number(
        c"sea_mq.inbox_retention",
        c"How long messages that are done are kept; longer where they might come again.",
        &INBOX_RETENTION,
        1,
        315_360_000,
        s,
    );
    number(
        c"sea_mq.dlq_retention",
        c"How long replayed and discarded dead letters are kept.",
        &DLQ_RETENTION,
        1,
        315_360_000,
        s,
    );
}

/// What may be reached outside, and how. Not an operator's to say, who makes endpoints.
fn define_endpoints() {
    let texts = [
        (
            c"sea_mq.endpoint_allowed_networks",
            c"Comma-separated networks that endpoints may be in although they are not public.",
            &ENDPOINT_ALLOWED_NETWORKS,
        ),
        (
            c"sea_mq.endpoint_proxy",
            c"Proxy that is asked to connect to endpoints, http://host:port; empty: none.",
            &ENDPOINT_PROXY,
        ),
        (
            c"sea_mq.endpoint_resolvers",
            c"Comma-separated name servers, address:port; empty: those of the system.",
            &ENDPOINT_RESOLVERS,
        ),
        (
            c"sea_mq.endpoint_ca_file",
            c"PEM file of authorities to trust beside those of the system.",
            &ENDPOINT_CA_FILE,
        ),
        (
            c"sea_mq.secret_key_file",
            c"File with the key of the secrets of endpoints; empty: sea_mq.key in the data directory.",
            &SECRET_KEY_FILE,
        ),
    ];
    for (name, short, setting) in texts {
        text(name, short, setting, GucContext::Suset, GucFlags::SUPERUSER_ONLY);
    }
    GucRegistry::define_bool_guc(
        c"sea_mq.endpoint_allow_http",
        c"Whether endpoints may be reached without TLS.",
        c"",
        &ENDPOINT_ALLOW_HTTP,
        GucContext::Suset,
        GucFlags::default(),
    );
    number(
        c"sea_mq.delivery_retention",
        c"How long deliveries that are done are kept.",
        &DELIVERY_RETENTION,
        1,
        315_360_000,
        GucFlags::UNIT_S,
    );
    number(
        c"sea_mq.endpoint_backlog_age",
        c"How long events wait in the log for an endpoint, at least twice sea_mq.retention; 0: for ever.",
        &ENDPOINT_BACKLOG_AGE,
        0,
        315_360_000,
        GucFlags::UNIT_S,
    );
    number(
        c"sea_mq.endpoint_backlog_size",
        c"Size of the log at which the oldest events no longer wait for endpoints; 0: none.",
        &ENDPOINT_BACKLOG_SIZE,
        0,
        i32::MAX,
        GucFlags::UNIT_MB,
    );
}

/// `None`: for ever.
pub fn endpoint_backlog_age() -> Option<Duration> {
    let age = ENDPOINT_BACKLOG_AGE.get();
    (age > 0).then(|| Duration::from_secs(u64::from(age.unsigned_abs())).max(retention() * 2))
}

/// Bytes; `None` for no bound.
pub fn endpoint_backlog_size() -> Option<u64> {
    let megabytes = ENDPOINT_BACKLOG_SIZE.get();
    (megabytes > 0).then(|| u64::from(megabytes.unsigned_abs()) << 20)
}

pub fn endpoint_allow_http() -> bool {
    ENDPOINT_ALLOW_HTTP.get()
}

pub fn endpoint_allowed_networks() -> Option<String> {
    string(&ENDPOINT_ALLOWED_NETWORKS)
}

pub fn endpoint_proxy() -> Option<String> {
    string(&ENDPOINT_PROXY)
}

pub fn endpoint_resolvers() -> Option<String> {
    string(&ENDPOINT_RESOLVERS)
}

pub fn endpoint_ca_file() -> Option<PathBuf> {
    path(&ENDPOINT_CA_FILE)
}

pub fn secret_key_file() -> Option<PathBuf> {
    path(&SECRET_KEY_FILE)
}

pub fn delivery_retention() -> Duration {
    Duration::from_secs(u64::from(DELIVERY_RETENTION.get().unsigned_abs()))
}

/// What is fixed when the server starts. Such a setting cannot be defined later on.
fn define_server() {
    // SAFETY: read by the main thread.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        GucRegistry::define_int_guc(
            c"sea_mq.max_databases",
            c"Databases of the server that can have workers.",
            c"",
            &MAX_DATABASES,
            1,
            8192,
            GucContext::Postmaster,
            GucFlags::default(),
        );
    }
}

fn string(setting: &Text) -> Option<String> {
    setting.get().and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty())
}

fn path(setting: &Text) -> Option<PathBuf> {
    string(setting).map(PathBuf::from)
}

fn millis(setting: &GucSetting<i32>) -> Duration {
    Duration::from_millis(u64::from(setting.get().unsigned_abs()))
}

/// What the session supplies to `emit` and, in a handler, the event that is handled. `now`: microseconds since 2000-01-01
/// UTC.
pub fn emit_defaults(now: i64) -> Defaults {
    let cause = cause::cause().unwrap_or_default();
    Defaults {
        context: string(&CONTEXT),
        correlation_id: string(&CORRELATION_ID).or(cause.correlation_id),
        causation_id: string(&CAUSATION_ID).or(cause.causation_id),
        traceparent: string(&TRACEPARENT).or(cause.traceparent),
        now,
    }
}

/// Where the broker is, or `None` if none is configured.
pub fn broker(client_name: String) -> Option<BrokerConfig> {
    let urls = string(&NATS_URL)?;
    Some(BrokerConfig {
        urls: Urls::new(&urls),
        credentials_file: path(&NATS_CREDENTIALS_FILE),
        nkey_file: path(&NATS_NKEY_FILE),
        user: string(&NATS_USER),
        password_file: path(&NATS_PASSWORD_FILE),
        token_file: path(&NATS_TOKEN_FILE),
        tls_required: NATS_TLS.get() || NATS_TLS_FIRST.get(),
        tls_first: NATS_TLS_FIRST.get(),
        tls_ca_file: path(&NATS_TLS_CA_FILE),
        tls_cert_file: path(&NATS_TLS_CERT_FILE),
        tls_key_file: path(&NATS_TLS_KEY_FILE),
        jetstream_domain: string(&NATS_JETSTREAM_DOMAIN),
        client_name,
        relay: None,
        connect_timeout: millis(&CONNECT_TIMEOUT),
        ack_timeout: millis(&ACK_TIMEOUT),
    })
}

/// Whether the settings name a broker; `installation::has_broker` knows of the test mode as well.
pub fn names_broker() -> bool {
    string(&NATS_URL).is_some()
}

pub fn enabled() -> bool {
    ENABLED.get()
}

pub fn auto_create_streams() -> bool {
    AUTO_CREATE_STREAMS.get()
}

pub fn poll_interval() -> Duration {
    millis(&POLL_INTERVAL)
}

/// How long a process stays that has nothing to do. `None`: for ever.
pub fn idle_timeout() -> Option<Duration> {
    Some(millis(&IDLE_TIMEOUT)).filter(|timeout| !timeout.is_zero())
}

pub fn reconnect_max() -> Duration {
    millis(&RECONNECT_MAX)
}

pub fn shutdown_timeout() -> Duration {
    millis(&SHUTDOWN_TIMEOUT)
}

pub fn retention() -> Duration {
    Duration::from_secs(u64::from(RETENTION.get().unsigned_abs()))
}

/// Bytes.
pub fn slot_size() -> u64 {
    u64::from(SLOT_SIZE.get().unsigned_abs()) * 1024
}

/// Bytes.
pub fn max_message_size() -> usize {
    usize::try_from(MAX_MESSAGE_SIZE.get()).unwrap_or(0)
}

/// Bytes; `None` for no limit.
pub fn max_outbox_size() -> Option<u64> {
    let megabytes = MAX_OUTBOX_SIZE.get();
    (megabytes > 0).then(|| u64::from(megabytes.unsigned_abs()) << 20)
}

pub fn max_in_flight() -> usize {
    usize::try_from(MAX_IN_FLIGHT.get()).unwrap_or(1)
}

/// Databases of the server that can have workers. For the postmaster; others ask the shared memory.
pub fn max_databases() -> usize {
    usize::try_from(MAX_DATABASES.get()).unwrap_or(1)
}

pub fn contracts() -> ContractPolicy {
    match CONTRACTS.get() {
        Contracts::Off => ContractPolicy::Off,
        Contracts::Warn => ContractPolicy::Warn,
        Contracts::Enforce => ContractPolicy::Enforce,
    }
}

pub fn on_stream_loss() -> OnStreamLoss {
    ON_STREAM_LOSS.get()
}

/// Longest run of a handler whose subscription does not say.
/// Processes that handle messages beside the consumer.
pub fn handler_processes() -> usize {
    usize::try_from(HANDLER_PROCESSES.get()).unwrap_or(0)
}

pub fn handler_timeout() -> Duration {
    millis(&HANDLER_TIMEOUT)
}

/// Bytes.
pub fn fetch_memory() -> usize {
    usize::try_from(FETCH_MEMORY.get()).unwrap_or(1) << 20
}

pub fn inbox_retention() -> Duration {
    Duration::from_secs(u64::from(INBOX_RETENTION.get().unsigned_abs()))
}

pub fn dlq_retention() -> Duration {
    Duration::from_secs(u64::from(DLQ_RETENTION.get().unsigned_abs()))
}
