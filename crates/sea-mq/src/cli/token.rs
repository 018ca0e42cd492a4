//! `sea-mq token`: a new token, and the line of the file that knows it.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use crate::auth::tokens::{Entry, hash};

#[derive(Args)]
pub struct Arguments {
    /// Role of the database that the token stands for
    #[arg(long)]
    role: String,
    /// Who gets it
    #[arg(long)]
    label: String,
    /// Days that it holds; for ever unless said
    #[arg(long)]
    days: Option<u64>,
}

/// Prints the token, which is nowhere else, and the line for the file.
///
/// # Errors
/// In words, when the system has no randomness to give.
pub fn run(arguments: &Arguments) -> Result<(), String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
    let token = format!("sea_mq_{}", URL_SAFE_NO_PAD.encode(bytes));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs();
    let entry = Entry {
        sha256: hash(&token),
        role: arguments.role.clone(),
        label: arguments.label.clone(),
        expires: arguments.days.map(|days| now + days * 86_400),
    };
    let line = serde_json::to_value(&entry).map_err(|error| error.to_string())?;
    println!("{}", json!({"token": token, "line": line.to_string()}));
    Ok(())
}
