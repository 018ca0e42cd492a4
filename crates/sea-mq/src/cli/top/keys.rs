//! What is typed, and what ends the process: read beside, so that neither waits for the database.

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub enum Pressed {
    Key(KeyCode),
    Resized,
    /// By a signal, or by Ctrl-C.
    End,
}

/// # Errors
/// In words, when signals cannot be waited for.
pub fn listen() -> Result<UnboundedReceiver<Pressed>, String> {
    let (sender, receiver) = unbounded_channel();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    let ended = sender.clone();
    // Both threads end with the process: it is the terminal's state that is to be put back, and not theirs.
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let _ = ended.send(Pressed::End);
        }
    });
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            let sent = match event {
                Event::Key(key) if key.kind == KeyEventKind::Release => continue,
                Event::Key(key) if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) => {
                    sender.send(Pressed::End)
                }
                Event::Key(key) => sender.send(Pressed::Key(key.code)),
                Event::Resize(..) => sender.send(Pressed::Resized),
                _ => continue,
            };
            if sent.is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}
