//! How far something is that takes long: on standard error, where that is a terminal, and never beside JSON. Nothing stays of it.

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Format;

const TICK: Duration = Duration::from_millis(100);

/// A bar for so many; without a number, a count that goes up.
pub fn bar(format: Format, doing: &str, total: Option<u64>) -> ProgressBar {
    match total {
        Some(total) => {
            begun(format, ProgressBar::new(total), "{msg} {wide_bar} {human_pos} of {human_len}, {eta} left", doing)
        }
        None => begun(format, ProgressBar::no_length(), "{spinner} {msg} {human_pos}, {elapsed}", doing),
    }
}

/// The result of some work. While it lasts, what is done and for how long already.
pub async fn while_it_runs<T>(format: Format, doing: &str, work: impl Future<Output = T>) -> T {
    let bar = begun(format, ProgressBar::no_length(), "{spinner} {msg}, {elapsed}", doing);
    let done = work.await;
    bar.finish_and_clear();
    done
}

fn begun(format: Format, bar: ProgressBar, template: &str, doing: &str) -> ProgressBar {
    if format == Format::Json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(doing.to_owned());
    bar.enable_steady_tick(TICK);
    bar
}
