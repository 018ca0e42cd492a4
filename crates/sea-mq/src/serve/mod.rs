//! `sea-mq serve`: REST and console on one listener, health and metrics on another.

pub mod admin;
pub mod listen;
pub mod log;
pub mod meter;
pub mod options;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;

use crate::auth::{Guard, jwt, seal, tokens};
use crate::db::config;
use crate::db::pool::{Database, Limits};
use crate::rest::{self, partners, request};
use options::Options;

/// What all requests share.
pub struct App {
    pub options: Options,
    pub database: Database,
    pub target: config::Target,
    pub guard: Guard,
    pub partners: HashMap<String, partners::Partner>,
    pub pollers: rest::tail::Pollers,
    pub meter: meter::Meter,
    /// The server is to end: what would go on for ever ends now.
    pub ending: watch::Sender<bool>,
    /// The last hour, for the console.
    pub console: crate::console::History,
}

impl App {
    /// A path as a browser or a client sees it.
    pub fn link(&self, path: &str) -> String {
        format!("{}{path}", self.options.base_path.trim_end_matches('/'))
    }
}

/// How long requests under way may take when the server ends.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// In words, why it cannot begin.
pub fn run(options: Options) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(serve(options))
}

async fn serve(options: Options) -> Result<(), String> {
    let app = app(options)?;
    check_role(&app).await;
    let listener = bind(app.options.listen).await?;
    let admin = bind(app.options.admin_listen).await?;
    let tls = app.options.tls()?;
    if tls.is_none() && !app.options.listen.ip().is_loopback() && !app.options.insecure {
        return Err(format!(
            "{} can be reached from outside, and there is no TLS: pass --tls-cert and --tls-key, or --insecure-listen behind a proxy that has it",
            app.options.listen
        ));
    }
    let traces = crate::traces::start(&app)?;
    announce(&listener, &admin, tls.is_some());
    let mut ending = app.ending.subscribe();
    spawn_signals(Arc::clone(&app))?;
    tokio::spawn(admin::serve(admin, Arc::clone(&app)));
    tokio::spawn(crate::console::sample(Arc::clone(&app)));
    let router = router(&app);
    let drained = listen::serve(listener, tls, router, app.ending.subscribe());
    tokio::pin!(drained);
    tokio::select! {
        // Told to end first: where no request is under way, both are true at once.
        biased;
        _ = ending.wait_for(|ending| *ending) => {}
        result = &mut drained => return result,
    }
    log::event("info", "ending: requests under way are finished");
    let result = tokio::time::timeout(DRAIN, drained).await.unwrap_or_else(|_| {
        log::event("warning", "requests were still under way");
        Ok(())
    });
    if let Some(traces) = traces {
        // It ends by itself, soon after it was told to.
        let _ = traces.await;
    }
    result
}

fn app(options: Options) -> Result<Arc<App>, String> {
    let target = config::target(options.database.as_deref())?;
    let limits = Limits { statement: options.statement_timeout, lock: options.lock_timeout, ..Limits::default() };
    let database = Database::new(target.clone(), options.pool, limits)?;
    let guard = Guard {
        tokens: options.tokens.as_deref().map(tokens::Tokens::open).transpose()?,
        jwt: match (&options.jwks, &options.jwt_issuer, &options.jwt_audience) {
            (Some(jwks), Some(issuer), Some(audience)) => {
                Some(jwt::Verifier::open(jwks, issuer, audience, &options.jwt_role_claim)?)
            }
            (None, ..) => None,
            _ => return Err("--jwks needs --jwt-issuer and --jwt-audience".into()),
        },
        sealer: seal::Sealer::new()?,
    };
    let partners = options.partners.as_deref().map(partners::read).transpose()?.unwrap_or_default();
    Ok(Arc::new(App {
        options,
        database,
        target,
        guard,
        partners,
        pollers: rest::tail::Pollers::default(),
        meter: meter::Meter::default(),
        ending: watch::channel(false).0,
        console: crate::console::History::default(),
    }))
}

/// Says what is wrong with the gateway's own role; it serves all the same, since the database may come later.
async fn check_role(app: &App) {
    let sql = "SELECT r.rolsuper OR r.rolcreaterole OR r.rolbypassrls, r.rolinherit, r.rolname::text FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";
    match app.database.own(sql).await {
        Ok(rows) => {
            let Some(row) = rows.first() else { return };
            if row.get::<_, Option<bool>>(0) == Some(true) {
                log::event(
                    "warning",
                    &format!(
                        "role {} is more than a gateway's should be: NOSUPERUSER NOCREATEROLE NOBYPASSRLS",
                        row.get::<_, &str>(2)
                    ),
                );
            }
            if row.get::<_, Option<bool>>(1) == Some(true) {
                log::event(
                    "warning",
                    &format!("role {} inherits what its roles may: ALTER ROLE … NOINHERIT", row.get::<_, &str>(2)),
                );
            }
        }
        Err(error) => log::event("warning", &format!("the database is not reachable yet: {}", error.message)),
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}"))
}

/// On standard output, for who started it: with port 0 the system has chosen one.
fn announce(listener: &TcpListener, admin: &TcpListener, tls: bool) {
    let scheme = if tls { "https" } else { "http" };
    let of = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    println!("{{\"url\":\"{scheme}://{}\",\"admin_url\":\"http://{}\"}}", of(listener), of(admin));
}

fn router(app: &Arc<App>) -> Router {
    let v1 = rest::router(app.options.body_limit, app.options.batch_limit);
    let all = Router::new().nest("/v1", v1).merge(crate::console::router());
    let base = app.options.base_path.trim_end_matches('/');
    let all = if base.is_empty() { all } else { Router::new().nest(base, all) };
    all.layer(CatchPanicLayer::new())
        .layer(axum::middleware::from_fn_with_state(Arc::clone(app), request::around))
        .with_state(Arc::clone(app))
}

/// Signals come on a thread of their own.
fn spawn_signals(app: Arc<App>) -> Result<(), String> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            app.ending.send_replace(true);
        }
    });
    Ok(())
}
