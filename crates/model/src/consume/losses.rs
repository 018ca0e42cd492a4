//! What a lost session says about what was pulled in it.

use std::time::Instant;

use super::intake::Intake;
use super::{AT_ONCE, Consumer, Notice, TOO_OFTEN, refused};
use crate::broker::{Fault, FaultKind, Request, SubscriptionId};

impl Consumer {
    /// The client library gives a connection up over a message whose header block it cannot read; that message would come
    /// again with the next session, and so for ever. A subscription that is alone in having begun just then is left out
    /// for a while, so that the others get on.
    pub(super) fn lost(&mut self, fault: Fault, now: Instant, jitter: f64) -> Vec<Notice> {
        let (fault, mut notices) = if fault.kind == FaultKind::UnreadableMessage {
            let notices = self.lost_over_a_message(&fault, now);
            (fault, notices)
        } else {
            self.lost_at_once = 0;
            self.lost_while_sent_to(fault, now)
        };
        self.connection.disconnected(now, jitter);
        self.ages_at = None;
        self.intakes.iter_mut().for_each(Intake::disconnected);
        notices.insert(0, Notice::Connection { fault: Some(fault) });
        notices
    }

    fn lost_over_a_message(&mut self, fault: &Fault, now: Instant) -> Vec<Notice> {
        let began = |intake: &&mut Intake| intake.began_within(AT_ONCE, now);
        let suspects = self.intakes.iter_mut().filter(began).count();
        self.lost_at_once = if suspects == 0 { 0 } else { self.lost_at_once + 1 };
        let often = self.lost_at_once >= TOO_OFTEN;
        let guilty = |intake: &&mut Intake| suspects == 1 && (often || intake.was_left_out());
        self.intakes.iter_mut().filter(began).filter(guilty).map(|intake| left_out(intake, fault, now)).collect()
    }

    /// A connection that breaks while the broker sends may have been cut for what was not read yet: less is asked for. Where
    /// even the least is too much, the subscriptions that have something to get are left out for a while.
    fn lost_while_sent_to(&mut self, fault: Fault, now: Instant) -> (Fault, Vec<Notice>) {
        if fault.kind != FaultKind::Unreachable || !self.intakes.iter().any(Intake::is_sent_to) {
            return (fault, Vec::new());
        }
        self.line.cut(now);
        if !self.line.is_cut_often() {
            return (fault, Vec::new());
        }
        let words = "again and again while messages are sent, as by a broker that cuts a slow consumer";
        let fault = Fault::new(FaultKind::SlowConsumer, format!("{} {words}", fault.message));
        let hopeless = self.line.is_hopeless();
        let sent_to = self.intakes.iter_mut().filter(|intake| hopeless && intake.is_sent_to());
        let notices = sent_to.map(|intake| left_out(intake, &fault, now)).collect();
        (fault, notices)
    }

    /// A consumer that does not answer may be heard when less is on its way. It is no sign of a cut: a cluster that is about to
    /// choose a leader does not answer either, and then none of its consumers does.
    pub(super) fn consume_failed(
        &mut self,
        subscription: SubscriptionId,
        fault: Fault,
        now: Instant,
        jitter: f64,
    ) -> (Vec<Request>, Vec<Notice>) {
        let mut requests = Vec::new();
        if fault.kind == FaultKind::Timeout && self.intakes.iter().any(Intake::is_sent_to) && self.line.narrow(now) {
            requests.push(Request::SetLine { line: self.line_share() });
        }
        let notice = self.intake(subscription).map(|intake| refused(intake, fault, now, jitter));
        (requests, notice.into_iter().collect())
    }
}

fn left_out(intake: &mut Intake, fault: &Fault, now: Instant) -> Notice {
    intake.leave_out(now);
    let message = format!("{}: the connection is lost whenever its messages are pulled", fault.message);
    Notice::Subscription { id: intake.id(), fault: Some(Fault::new(fault.kind, message)) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{answer, consumer, lose_by, run};
    use super::*;
    use crate::broker::{ConsumerInfo, Report};

    fn delivered(consumer: &mut Consumer, pending: u64, now: Instant) {
        let message = super::super::intake::tests::pending(pending);
        consumer.report(Report::Delivered { subscription: 1, messages: vec![message] }, now, 0.0);
    }

    fn kinds(notices: &[Notice]) -> Vec<FaultKind> {
        let kind = |notice: &Notice| match notice {
            Notice::Connection { fault } | Notice::Subscription { fault, .. } => fault.as_ref().map(|fault| fault.kind),
            _ => None,
        };
        notices.iter().filter_map(kind).collect()
    }

    #[test]
    fn each_cut_while_messages_are_sent_halves_what_is_asked_for_until_nothing_helps() {
        let mut consumer = consumer(2);
        let mut now = Instant::now();
        let before = consumer.line_share();
        for cut in 1..=2 {
            run(&mut consumer, now);
            delivered(&mut consumer, 7, now);
            now += Duration::from_secs(9);
            assert_eq!(kinds(&lose_by(&mut consumer, FaultKind::Unreachable, now)), [FaultKind::Unreachable]);
            assert_eq!(consumer.line_share(), before >> cut);
        }
        run(&mut consumer, now);
        delivered(&mut consumer, 7, now);
        let kinds = kinds(&lose_by(&mut consumer, FaultKind::Unreachable, now));
        assert_eq!(kinds, [FaultKind::SlowConsumer; 2], "the connection, and the one that was sent to");
        assert_eq!(run(&mut consumer, now), [2], "it is left out");
    }

    #[test]
    fn a_loss_while_nothing_is_sent_says_nothing() {
        let mut consumer = consumer(1);
        let now = Instant::now();
        let before = consumer.line_share();
        for _ in 0..5 {
            run(&mut consumer, now);
            delivered(&mut consumer, 0, now);
            assert_eq!(kinds(&lose_by(&mut consumer, FaultKind::Unreachable, now)), [FaultKind::Unreachable]);
        }
        assert_eq!(consumer.line_share(), before);
    }

    #[test]
    fn a_server_that_is_cut_off_from_its_cluster_has_not_cut_the_connection() {
        let mut consumer = consumer(2);
        let now = Instant::now();
        let before = consumer.line_share();
        for _ in 0..9 {
            run(&mut consumer, now);
            delivered(&mut consumer, 7, now);
            assert_eq!(kinds(&lose_by(&mut consumer, FaultKind::Isolated, now)), [FaultKind::Isolated]);
        }
        assert_eq!(consumer.line_share(), before);
        assert_eq!(run(&mut consumer, now), [1, 2], "none is left out");
    }

    #[test]
    fn what_a_consumer_has_at_the_beginning_counts_as_sent() {
        let mut consumer = consumer(1);
        let now = Instant::now();
        consumer.report(Report::Connected(Default::default()), now, 0.0);
        let requests = consumer.tick(now);
        assert!(answer(&mut consumer, requests, now).is_empty());
        let info = ConsumerInfo { ack_pending: 50, ..ConsumerInfo::default() };
        consumer.report(Report::ConsumerReady { stream: "S".into(), name: "s1".into(), info }, now, 0.0);
        let before = consumer.line_share();
        lose_by(&mut consumer, FaultKind::Unreachable, now);
        assert!(consumer.line_share() < before);
    }
}
