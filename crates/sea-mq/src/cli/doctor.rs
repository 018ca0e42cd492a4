//! `sea-mq doctor`: from the connection to the broker, what is in the way, and the command that fixes it.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::session::Session;
use super::{Format, Verdict};
use crate::db::call::Ask;

/// What was looked at.
struct Finding {
    what: &'static str,
    ok: bool,
    says: String,
    fix: Option<String>,
}

impl Finding {
    fn new(what: &'static str, ok: bool, says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, ok, says: says.into(), fix: (!ok).then(|| fix.into()) }
    }
}

pub async fn run(format: Format, connection: Option<&str>) -> Verdict {
    let findings = match Session::open(connection).await {
        Ok(session) => look(&session).await?,
        Err(error) => vec![Finding::new(
            "connection",
            false,
            error,
            "psql with the same environment says the same: look at PGHOST, PGPORT, PGUSER, PGPASSFILE and pg_hba.conf",
        )],
    };
    match format {
        Format::Json => {
            let rows =
                findings.iter().map(|one| json!({"finding": one.what, "ok": one.ok, "says": one.says, "fix": one.fix}));
            println!("{}", Value::Array(rows.collect()));
        }
        Format::Human => {
            for one in &findings {
                println!("{}  {}: {}", if one.ok { "ok " } else { "BAD" }, one.what, one.says);
                if let Some(fix) = &one.fix {
                    println!("     {fix}");
                }
            }
        }
    }
    Ok(if findings.iter().all(|one| one.ok) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Each question makes sense only if those before it were answered well.
async fn look(session: &Session) -> Result<Vec<Finding>, String> {
    let mut findings = vec![Finding::new(
        "connection",
        true,
        text(session, "SELECT current_user || ' in ' || current_database()").await?,
        "",
    )];
    let installed =
        text(session, "SELECT (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'sea_mq')").await?;
    findings.push(Finding::new(
        "extension",
        !installed.is_empty(),
        if installed.is_empty() { "not installed in this database".into() } else { format!("version {installed}") },
        "psql -c 'CREATE EXTENSION sea_mq'",
    ));
    if installed.is_empty() {
        return Ok(findings);
    }
    let may = text(session, "SELECT has_table_privilege('sea_mq.problems', 'SELECT')::text").await.unwrap_or_default()
        == "true";
    findings.push(Finding::new(
        "rights",
        may,
        if may { "this role may look" } else { "this role may not read the status" },
        "psql -c 'GRANT sea_mq_monitor TO the role'",
    ));
    if !may {
        return Ok(findings);
    }
    findings.extend(workers(session).await?);
    let problems =
        session.rows(&Ask::new("SELECT * FROM sea_mq.problems p ORDER BY p.rank, p.problem").rows_of()).await?;
    if problems.is_empty() {
        findings.push(Finding::new("problems", true, "none", ""));
    }
    for problem in &problems {
        findings.push(Finding::new("problem", false, field(problem, "problem"), field(problem, "hint")));
    }
    Ok(findings)
}

async fn workers(session: &Session) -> Result<Vec<Finding>, String> {
    let relay = session.rows(&Ask::new("SELECT * FROM sea_mq.relay_status").rows_of()).await?.pop().unwrap_or_default();
    let preloaded = relay["preloaded"] == true;
    let running = relay["running"] == true;
    let state = field(&relay, "state");
    let idle = state == "idle";
    let connected = running && state == "connected" || idle;
    let library = Finding::new(
        "library",
        preloaded,
        if preloaded { "preloaded" } else { "not in shared_preload_libraries" },
        "psql -c \"ALTER SYSTEM SET shared_preload_libraries = 'sea_mq'\" (with what stands there already), then restart the server",
    );
    let process = Finding::new(
        "relay",
        running || idle || ["standby", "unconfigured"].contains(&state.as_str()),
        state.clone(),
        "psql -c 'SELECT sea_mq.start()'",
    );
    let fix = if state == "unconfigured" {
        "psql -c \"ALTER DATABASE the_database SET sea_mq.nats_url = 'nats://localhost:4222'\" -c 'SELECT sea_mq.reload()'".to_owned()
    } else {
        field(&relay, "hint")
    };
    let says = if connected {
        format!("{} {}", field(&relay, "server_name"), field(&relay, "server_version"))
    } else {
        format!("{state} {}", field(&relay, "error"))
    };
    Ok(vec![library, process, Finding::new("broker", connected, says.trim().to_owned(), fix)])
}

fn field(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}

async fn text(session: &Session, sql: &str) -> Result<String, String> {
    let found = session.rows(&Ask::new(sql)).await?.pop();
    Ok(found.map_or_else(String::new, |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
}
