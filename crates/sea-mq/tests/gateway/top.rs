//! `sea-mq top` in a terminal, and without one.

use crate::shared::{command, shared, until};
use crate::terminal::Terminal;

/// A database of which all is known: two streams that nobody makes, a subscription, an endpoint.
fn database() -> &'static str {
    static MADE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        shared().db().batch_execute("CREATE DATABASE topped").expect("created");
        let database = format!("host=127.0.0.1 port={} user=postgres dbname=topped", shared().port);
        let mut db = postgres::Client::connect(&database, postgres::NoTls).expect("connected");
        db.batch_execute(
            "CREATE EXTENSION sea_mq;
             SELECT sea_mq.create_stream('early', managed => false), sea_mq.create_stream('late', managed => false);
             SELECT sea_mq.subscribe('shipping__early', 'early', context => 'shipping');
             SELECT sea_mq.create_endpoint('acme', 'webhook', 'https://acme.example/hook', source => 'early');
             SELECT sea_mq.pause_endpoint('acme');
             SELECT count(sea_mq.emit('order', '1', 'Made', '{}', context => 'late')) FROM generate_series(1, 1234);",
        )
        .expect("prepared");
        database
    })
}

fn top(variables: &[(&str, &str)]) -> Terminal {
    Terminal::run(variables, &["top", "-n", "1", "--connection", database()])
}

fn line(screen: &str, begin: &str) -> Option<usize> {
    screen.lines().position(|line| line.trim_start().starts_with(begin))
}

#[test]
fn top_shows_what_goes_on_sorts_helps_and_leaves_the_terminal_as_it_was() {
    let terminal = top(&[]);
    let screen = terminal.until("all is shown", |screen| {
        ["EARLY_EVENTS", "LATE_EVENTS", "shipping__early", "acme", "PROBLEMS", "q quit"]
            .iter()
            .all(|word| screen.contains(word))
    });
    assert!(screen.lines().any(|line| line.contains("LATE_EVENTS") && line.contains("1,234")), "{screen}");
    assert!(screen.lines().any(|line| line.contains("acme") && line.contains("paused")), "{screen}");
    assert!(screen.contains("topped as postgres") && screen.contains("by name"), "{screen}");
    assert!(line(&screen, "EARLY_EVENTS") < line(&screen, "LATE_EVENTS"), "{screen}");
    terminal.press("r");
    terminal.until("the other way round", |screen| line(screen, "LATE_EVENTS") < line(screen, "EARLY_EVENTS"));
    terminal.press("r");
    for word in ["by rate", "by pending"] {
        terminal.press("s");
        terminal.until(word, |screen| screen.contains(word));
    }
    terminal.until("most pending first", |screen| line(screen, "LATE_EVENTS") < line(screen, "EARLY_EVENTS"));
    terminal.press("h");
    terminal.until("help", |screen| screen.contains("this help"));
    terminal.press("x");
    terminal.until("help is gone", |screen| !screen.contains("this help"));
    // Time goes on, unless it is held.
    let time = |screen: &str| screen.lines().next().and_then(|line| line.split(" UTC").next()).map(str::to_owned);
    let before = time(&terminal.screen());
    terminal.until("it is refreshed", |screen| time(screen) != before);
    terminal.press("Space");
    terminal.until("it is held", |screen| screen.contains("HELD"));
    terminal.press("q");
    let after = terminal.until("it ends", |screen| screen.contains("ended 0"));
    assert!(after.starts_with("before") && !after.contains("STREAMS"), "{after}");
}

#[test]
fn top_counts_what_is_published_in_a_second() {
    let shared_database = shared().database.replace("sea_mq_gateway@", "postgres@");
    let terminal = Terminal::run(&[], &["top", "-n", "1", "--connection", &shared_database]);
    terminal.until("it begins", |screen| screen.contains("STREAMS ("));
    terminal.press("s");
    let mut db = shared().db();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        db.batch_execute(
            "SELECT count(sea_mq.emit('order', '1', 'Topped', '{}', context => 'orders')) FROM generate_series(1, 50)",
        )
        .expect("emitted");
        let screen = terminal.screen();
        // By rate, the greatest first: below the head of the table.
        let row = line(&screen, "▸STREAMS").and_then(|head| screen.lines().nth(head + 1)).unwrap_or_default();
        let rate = row.split_whitespace().nth(2).and_then(|rate| rate.replace(',', "").parse::<f64>().ok());
        if row.trim_start().starts_with("ORDERS_EVENTS") && rate.is_some_and(|rate| rate > 10.0) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{screen}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Whether something sets a colour of letters or of what is behind them.
fn is_coloured(screen: &str) -> bool {
    let marks = screen.split('\x1b').skip(1).filter_map(|rest| rest.strip_prefix('[')?.split_once('m'));
    let colours = |number: &str| matches!(number.parse::<u32>(), Ok(30..=38 | 40..=48 | 90..=97 | 100..=107));
    marks.map(|(numbers, _)| numbers).any(|numbers| numbers.split(';').any(colours))
}

#[test]
fn top_has_colours_unless_nobody_wants_them() {
    for (variables, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        let terminal = top(variables);
        terminal.until("a problem is shown", |screen| screen.contains("PROBLEMS") && screen.contains("EARLY_EVENTS"));
        assert_eq!(is_coloured(&terminal.coloured()), coloured, "{variables:?}");
    }
}

#[test]
fn top_fits_into_small_terminals_and_ends_with_a_signal_as_with_a_key() {
    let terminal = top(&[]);
    terminal.until("it begins", |screen| screen.contains("SUBSCRIPTIONS"));
    for (width, height) in [("40", "9"), ("3", "1"), ("200", "60")] {
        terminal.tmux(&["resize-window", "-x", width, "-y", height]);
    }
    terminal.until("it is drawn anew", |screen| {
        screen.contains("SUBSCRIPTIONS") && screen.lines().any(|line| line.len() > 150)
    });
    let parent = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let children = format!("/proc/{0}/task/{0}/children", parent.trim());
    let child = std::fs::read_to_string(children).expect("a child");
    let killed = std::process::Command::new("kill").args(["-TERM", child.trim()]).status().expect("it runs");
    assert!(killed.success());
    let after = terminal.until("it ends", |screen| screen.contains("ended 0"));
    assert!(!after.contains("SUBSCRIPTIONS"), "{after}");
}

#[test]
fn without_a_terminal_top_says_so_before_it_asks_anybody() {
    let nobody = "host=127.0.0.1 port=1 user=x dbname=x connect_timeout=2";
    let said = |arguments: &[&str]| {
        let output = command().args(arguments).args(["--connection", nobody]).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), output.stdout.len())
    };
    let (status, error, printed) = said(&["top"]);
    assert!(status == Some(2) && printed == 0 && error.contains("needs a terminal"), "{error}");
    let (status, error, printed) = said(&["top", "--format", "json"]);
    assert!(status == Some(2) && printed == 0 && error.contains("status --format json"), "{error}");
    let away = Terminal::run(&[], &["top", "--connection", nobody]);
    away.until("the error is read", |screen| screen.contains("error: ") && screen.contains("ended 2"));
}

#[test]
fn what_takes_long_shows_how_far_it_is_on_a_terminal_alone() {
    let database = shared().database.replace("sea_mq_gateway@", "postgres@");
    let letters = |subscription: &str| {
        let insert = "INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, event_type, event_version, aggregate_type,
                aggregate_id, payload, headers, reason, failure_count, error, last_failed_at, dlq_message_id)
            SELECT 'orders', 'orders.event.made.v1', $1, 'made', 1, 'order', '1', '{}', '{}', 'foreign', 1, 'no', now(), $1 || n
            FROM generate_series(1, 700) n";
        shared().db().execute(insert, &[&subscription]).expect("inserted");
    };
    let left = |subscription: &str| -> i64 {
        let sql = "SELECT count(*) FROM sea_mq.dlq_messages WHERE subscription = $1 AND replayed_at IS NULL AND discarded_at IS NULL";
        shared().db().query_one(sql, &[&subscription]).expect("counted").get(0)
    };
    for verb in ["replay", "discard"] {
        let [seen, json, piped] = ["seen", "json", "piped"].map(|how| format!("bars__{verb}_{how}"));
        [&seen, &json, &piped].into_iter().for_each(|subscription| letters(subscription));
        let arguments =
            |subscription| ["dlq", verb, "--all", "--connection", &database, "--subscription", subscription];
        let terminal = Terminal::run(&[], &arguments(&seen));
        let screen = terminal.until("it ends", |screen| screen.contains("ended 0"));
        let written = terminal.written();
        assert!(written.contains("of 700") && !screen.contains("of 700"), "{written}\n{screen}");
        let quiet = Terminal::run(&[], &[&arguments(&json)[..], &["--format", "json"]].concat());
        quiet.until("it ends", |screen| screen.contains("ended 0"));
        assert!(!quiet.written().contains("of 700"), "{}", quiet.written());
        let output = command().args(arguments(&piped)).output().expect("it runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        until("all are decided", || [&seen, &json, &piped].into_iter().all(|subscription| left(subscription) == 0));
    }
}
