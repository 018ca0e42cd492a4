//! What the writers know of their transactions: the truth that the streams are held against.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use uuid::Uuid;

/// What became of a transaction, as far as its writer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// COMMIT was answered, and PostgreSQL may not take it back.
    Committed,
    /// COMMIT was answered with `synchronous_commit = off`: a crash of the server may take it back.
    CommittedLazily,
    /// COMMIT was never sent, or ROLLBACK PREPARED was answered.
    RolledBack,
    /// COMMIT or PREPARE was sent and not answered, or it is prepared. The database knows: it has the transaction's witness or
    /// has not.
    Unknown,
}

/// An event as its writer emitted it.
#[derive(Clone, Copy, Debug)]
pub struct Emitted {
    pub id: Uuid,
    pub context: &'static str,
    pub aggregate: i64,
    /// The aggregate's counter, which goes 1, 2, 3, … in the order of the commits.
    pub n: i64,
}

/// One transaction, with its events in the order of the calls; without those of savepoints that were rolled back.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Unique in a run, and in the payload of its events.
    pub key: i64,
    pub database: &'static str,
    pub fate: Fate,
    /// When the answer to COMMIT came, in microseconds since 1970; 0 if none came.
    pub committed_at: i64,
    pub events: Vec<Emitted>,
}

/// The transactions of all writers.
#[derive(Default)]
pub struct Ledger {
    transactions: Mutex<Vec<Transaction>>,
    last_key: AtomicI64,
}

impl Ledger {
    /// A number that nobody else gets in this run.
    pub fn next_key(&self) -> i64 {
        self.last_key.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// # Panics
    /// Not in practice.
    pub fn add(&self, transaction: Transaction) {
        self.transactions.lock().expect("nobody panics with the lock").push(transaction);
    }

    /// What became of a transaction whose fate was unknown.
    ///
    /// # Panics
    /// Not in practice.
    pub fn settle(&self, key: i64, fate: Fate) {
        let mut transactions = self.transactions.lock().expect("nobody panics with the lock");
        if let Some(transaction) = transactions.iter_mut().rev().find(|one| one.key == key) {
            transaction.fate = fate;
        }
    }

    /// The transactions from the place `from` on.
    ///
    /// # Panics
    /// Not in practice.
    pub fn since(&self, from: usize) -> Vec<Transaction> {
        self.transactions.lock().expect("nobody panics with the lock").get(from..).unwrap_or_default().to_vec()
    }

    /// # Panics
    /// Not in practice.
    pub fn transactions(&self) -> Vec<Transaction> {
        self.transactions.lock().expect("nobody panics with the lock").clone()
    }
}
