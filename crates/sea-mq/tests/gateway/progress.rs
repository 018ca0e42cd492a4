//! How far commands are that take long: on a terminal, and nowhere else.

use crate::shared::{command, shared, until};
use crate::terminal::Terminal;

/// A database with a stream and 501 dead letters: a page, and one more.
fn database(name: &str) -> (String, postgres::Client) {
    let mut db = shared().own_database(name);
    db.batch_execute(&format!(
        "SELECT sea_mq.create_stream('{name}');
         INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, event_type, event_version, aggregate_type, aggregate_id,
            payload, headers, reason, failure_count, error, last_failed_at, dlq_message_id)
         SELECT '{name}', '{name}.event.made.v1', 'app__s', 'made', 1, 'order', '1', '{{}}', '{{}}', 'foreign', 1, 'no', now(), n::text
         FROM generate_series(1, 501) n"
    ))
    .expect("prepared");
    (shared().address("postgres", name), db)
}

const LAST: &str = "SELECT FROM sea_mq.dlq_messages ORDER BY id DESC LIMIT 1 FOR UPDATE";

/// Until a command waits for what somebody holds.
fn until_it_waits(name: &str) {
    let mut looker = shared().db();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'sea-mq' AND wait_event_type = 'Lock'";
    until("it is under way", || looker.query_one(sql, &[&name]).expect("a row").get::<_, i64>(0) > 0);
}

#[test]
fn a_terminal_shows_how_far_a_replay_is_and_nothing_of_it_stays() {
    let (database, mut db) = database("progressing");
    let mut held = db.transaction().expect("begun");
    held.batch_execute(LAST).expect("held");
    let terminal = Terminal::run(&[], &["dlq", "replay", "--all", "--connection", &database]);
    terminal.until("a page is done", |screen| screen.contains("replaying") && screen.contains("500 of 501"));
    held.rollback().expect("released");
    let screen = terminal.until("it has ended", |screen| screen.contains("ended 0"));
    assert!(screen.contains("501 replayed") && !screen.contains("replaying"), "{screen}");
}

#[test]
fn a_terminal_shows_that_a_comparison_goes_on() {
    let (database, mut db) = database("comparing");
    let mut held = db.transaction().expect("begun");
    held.batch_execute("LOCK TABLE sea_mq.streams IN ACCESS EXCLUSIVE MODE").expect("held");
    let terminal = Terminal::run(&[], &["verify", "COMPARING_EVENTS", "--connection", &database]);
    terminal.until("it is told", |screen| screen.contains("comparing COMPARING_EVENTS with the log, "));
    held.rollback().expect("released");
    let screen = terminal.until("it has ended", |screen| screen.contains("ended "));
    assert!(!screen.contains("with the log, "), "{screen}");
}

#[test]
fn programs_are_shown_nothing_but_the_result() {
    let (database, mut db) = database("silent");
    let replay = ["dlq", "replay", "--all", "--connection", database.as_str()];
    let json = [&replay[..], &["--format", "json"]].concat();
    let mut held = db.transaction().expect("begun");
    held.batch_execute(LAST).expect("held");
    // A terminal, and JSON.
    let terminal = Terminal::run(&[], &json);
    until_it_waits("silent");
    held.rollback().expect("released");
    terminal.until("it has ended", |screen| screen.contains("ended 0"));
    let written = terminal.written();
    assert!(written.contains("\"replayed\":501") && !written.contains("replaying"), "{written}");
    // No terminal.
    db.execute("UPDATE sea_mq.dlq_messages SET replayed_at = NULL, replay_event_id = NULL", &[]).expect("open again");
    let mut held = db.transaction().expect("begun");
    held.batch_execute(LAST).expect("held");
    let mut command = command();
    let asking = std::thread::spawn({
        let replay: Vec<String> = replay.iter().map(|&word| word.to_owned()).collect();
        move || command.args(replay).output().expect("it runs")
    });
    until_it_waits("silent");
    held.rollback().expect("released");
    let output = asking.join().expect("no panic");
    let [out, error] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("a text"));
    assert_eq!((out.as_str(), error.as_str()), ("501 replayed\n", ""));
}
