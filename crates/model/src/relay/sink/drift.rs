//! A stream that somebody changes while it is in use.

use super::Sink;
use crate::broker::{Fault, Request, Seen, StreamSpec};

impl Sink {
    /// The description, with what is known of the stream.
    pub(super) fn spec(&self) -> Box<StreamSpec> {
        let spec = self.described.spec.clone();
        Box::new(StreamSpec { marked_us: self.marked_us, fewer_replicas: self.fewer_replicas, ..spec })
    }

    /// Creation time of the stream when it carried our mark, as it was saved.
    pub fn set_marked(&mut self, marked_us: Option<i64>) {
        self.marked_us = marked_us;
    }

    pub fn marked_us(&self) -> Option<i64> {
        self.marked_us
    }

    /// Why the broker did not bring the stream to its description.
    pub fn declined(&self) -> Option<&Fault> {
        self.declined.as_ref()
    }

    /// Asks whether the stream is still as it was made.
    pub fn look(&self) -> Option<Request> {
        self.is_flowing().then(|| Request::ReadStream { sink: self.id(), spec: self.spec() })
    }

    /// The stream as it is found. Returns what to ask for if it has changed: it is provisioned anew.
    pub fn seen(&mut self, seen: &Seen) -> Option<Request> {
        if !self.is_flowing() {
            return None;
        }
        if seen.drift.is_empty() && seen.differences == self.differences {
            self.drift.gone();
            return None;
        }
        self.drift.found(&seen.drift).then(|| self.begin())
    }
}
