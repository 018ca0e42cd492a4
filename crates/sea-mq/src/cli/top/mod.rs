//! `sea-mq top`: what goes on, refreshed until `q` is pressed.

mod keys;
mod sample;
mod screen;
mod sections;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use tokio::sync::mpsc::UnboundedReceiver;

use super::session::Session;
use super::{Format, Verdict};
use keys::Pressed;
use sample::{History, Sample};
use screen::Screen;

#[derive(Args)]
pub struct Arguments {
    /// Seconds between two looks
    #[arg(short = 'n', long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

/// Where somebody sees it.
///
/// # Errors
/// In words, why nothing can be drawn here.
fn check(format: Format) -> Result<(), String> {
    if format == Format::Json {
        return Err("top draws for people; for programs there is sea-mq status --format json".into());
    }
    let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() || dumb {
        return Err("top needs a terminal to draw on; elsewhere there is sea-mq status --watch 2".into());
    }
    Ok(())
}

pub async fn run(connection: Option<&str>, format: Format, arguments: &Arguments) -> Verdict {
    check(format)?;
    let session = Session::open(connection).await?;
    // What cannot be asked at all is said where it is seen: before the screen is taken.
    let first = Sample::take(&session).await?;
    let pressed = keys::listen()?;
    let mut terminal = ratatui::try_init().map_err(|error| format!("the terminal cannot be drawn on: {error}"))?;
    let ended = watch(&session, &mut terminal, pressed, first, Duration::from_secs(arguments.interval)).await;
    ratatui::restore();
    ended.map(|()| ExitCode::SUCCESS)
}

async fn watch(
    session: &Session,
    terminal: &mut DefaultTerminal,
    mut pressed: UnboundedReceiver<Pressed>,
    first: Sample,
    interval: Duration,
) -> Result<(), String> {
    let mut history = History::new(first);
    let mut screen = Screen::new(interval, std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        terminal.draw(|frame| screen.draw(frame, &history)).map_err(|error| error.to_string())?;
        tokio::select! {
            key = pressed.recv() => match key {
                Some(Pressed::Key(key)) => if screen.press(key) { return Ok(()) },
                Some(Pressed::Resized) => {}
                Some(Pressed::End) | None => return Ok(()),
            },
            _ = ticks.tick(), if !screen.is_held() => history.add(Sample::take(session).await?),
        }
    }
}
