//! What comparing a stream with the log has found, for the session that asked.

use crate::host::spi::{self, Arg, TextRow};
use sea_mq_model::relay::compare::Finding;

/// Forgets what was found for an earlier session.
pub fn clear() {
    spi::execute("DELETE FROM sea_mq.stream_findings", &[]);
}

pub fn save(finding: &Finding) {
    let event = finding.event.map(|id| id.to_string());
    spi::execute(
        "INSERT INTO sea_mq.stream_findings (kind, event_id, seq, stream_seq, detail) VALUES ($1, $2::uuid, $3, $4, $5)",
        &[
            Arg::Text(finding.kind.token()),
            Arg::OptionalText(event.as_deref()),
            Arg::OptionalInt8(finding.seq),
            Arg::OptionalInt8(finding.stream_sequence.map(u64::cast_signed)),
            Arg::Text(&finding.detail),
        ],
    );
}

/// Notes why there is no answer.
pub fn save_trouble(message: &str, hint: &str) {
    clear();
    let sql = "INSERT INTO sea_mq.stream_findings (kind, detail, hint) VALUES ('trouble', $1, $2)";
    spi::execute(sql, &[Arg::Text(message), Arg::Text(hint)]);
}

/// Why there is no answer (message and hint), if there is none.
pub fn trouble() -> Option<(String, String)> {
    let rows = spi::query("SELECT detail, hint FROM sea_mq.stream_findings WHERE kind = 'trouble'", &[]);
    rows.first().map(|row| (spi::parsed(row, 0), spi::parsed(row, 1)))
}

/// All of them: kind, event, place in the log, stream sequence, detail.
pub fn all() -> Vec<TextRow> {
    spi::query(
        "SELECT kind, event_id, seq, stream_seq, detail FROM sea_mq.stream_findings
         ORDER BY coalesce(stream_seq, 0), coalesce(seq, 0)",
        &[],
    )
}
