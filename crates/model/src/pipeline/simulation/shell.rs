//! The shell of the simulation: carries out in the model what the pipeline decides.

use super::*;

/// Carries out in the model, for messages that were just delivered and for those that wait in the inbox.
pub(super) struct Model<'a> {
    pub(super) world: &'a mut World,
    /// Messages for which the turn has time.
    pub(super) left: usize,
}

struct Batch<'a> {
    world: &'a mut World,
    database: Database,
    seen: BTreeSet<MessageId>,
    fails_at_commit: bool,
    left: usize,
}

impl Transaction<MessageId> for Batch<'_> {
    fn accept(&mut self, message: &MessageId) -> Accept {
        if self.seen.insert(*message) && !self.database.knows(*message) { Accept::New } else { Accept::Known }
    }

    fn attempt(&mut self, message: &MessageId) -> Outcome {
        self.left = self.left.saturating_sub(1);
        let (outcome, fails) = self.world.handle(&mut self.database, *message, 1);
        self.fails_at_commit |= fails;
        if outcome == Outcome::Processed {
            self.database.firsts.push(*message);
            self.database.done.insert(*message);
        }
        outcome
    }

    fn failed(&mut self, message: &MessageId, outcome: Outcome) {
        self.database.firsts.push(*message);
        let id = self.database.store(*message, true);
        self.database.conclude(id, &outcome);
    }

    fn is_over(&self) -> bool {
        self.left == 0
    }
}

impl Hands for Model<'_> {
    type Noted = i64;
    type Trouble = ();

    fn attempt(&mut self, id: &i64, last: bool) -> Result<Attempt<()>, Failure> {
        attempt(self.world, *id, last)
    }

    fn conclude(&mut self, id: &i64, outcome: &Outcome) -> Result<(), Failure> {
        conclude(self.world, *id, outcome)
    }

    fn pause(&mut self, _: u32) {}

    fn is_over(&self) -> bool {
        self.left == 0
    }

    fn between(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    fn undone(&mut self, _: &Failure, _: usize) {}
}

impl Shell<MessageId> for Model<'_> {
    fn together(&mut self, messages: &[MessageId], room: usize) -> Result<Turn<()>, Failure> {
        let database = self.world.begin()?;
        if self.world.happens(0.05) {
            return Ok(Turn::Blocked(()));
        }
        let (seen, left) = (BTreeSet::new(), self.left);
        let mut batch = Batch { world: self.world, database, seen, fails_at_commit: false, left };
        let tally = together(messages, room, &mut batch)?;
        let Batch { database, fails_at_commit, .. } = batch;
        self.world.commit(database, fails_at_commit)?;
        Ok(Turn::Done(tally))
    }

    fn note(&mut self, message: &MessageId) -> Result<Option<i64>, Failure> {
        let mut database = self.world.begin()?;
        if database.knows(*message) {
            return Ok(None);
        }
        let id = database.store(*message, true);
        database.firsts.push(*message);
        self.world.commit(database, false)?;
        Ok(Some(id))
    }
}

/// The attempt of a message that was noted as under way.
fn attempt(world: &mut World, id: i64, last: bool) -> Result<Attempt<()>, Failure> {
    let mut database = world.begin()?;
    let Row { message, attempts, .. } = database.pending[&id];
    if world.happens(0.05) {
        if let Some(row) = database.pending.get_mut(&id) {
            row.attempts -= 1;
            row.processing = false;
        }
        world.commit(database, false)?;
        return Ok(Attempt::Blocked(()));
    }
    let (outcome, fails) = world.handle(&mut database, message, attempts);
    if !last && matches!(outcome, Outcome::Again(_)) {
        return Ok(Attempt::Again);
    }
    let processed = outcome == Outcome::Processed;
    database.conclude(id, &outcome);
    world.commit(database, fails)?;
    Ok(Attempt::Concluded { processed })
}

fn conclude(world: &mut World, id: i64, outcome: &Outcome) -> Result<(), Failure> {
    let mut database = world.begin()?;
    database.conclude(id, outcome);
    world.commit(database, false)
}

/// A message that waits in the inbox.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) id: i64,
    pub(super) message: MessageId,
    pub(super) attempts: usize,
}

impl Transaction<Kept> for Batch<'_> {
    fn accept(&mut self, one: &Kept) -> Accept {
        match self.database.pending.get(&one.id) {
            Some(row) if !row.processing && row.attempts == 0 => Accept::New,
            _ => Accept::Pass,
        }
    }

    fn attempt(&mut self, one: &Kept) -> Outcome {
        self.left = self.left.saturating_sub(1);
        let (outcome, fails) = self.world.handle(&mut self.database, one.message, 1);
        self.fails_at_commit |= fails;
        if outcome == Outcome::Processed {
            first(&mut self.database, one.message);
            self.database.conclude(one.id, &outcome);
        }
        outcome
    }

    fn failed(&mut self, one: &Kept, outcome: Outcome) {
        first(&mut self.database, one.message);
        if let Some(row) = self.database.pending.get_mut(&one.id) {
            row.attempts = 1;
        }
        self.database.conclude(one.id, &outcome);
    }

    fn is_over(&self) -> bool {
        self.left == 0
    }
}

/// A message whose attempt was none, since the handler could not be run, may have its first attempt behind others.
fn first(database: &mut Database, message: MessageId) {
    if !database.firsts.contains(&message) {
        database.firsts.push(message);
    }
}

impl Shell<Kept> for Model<'_> {
    fn together(&mut self, messages: &[Kept], room: usize) -> Result<Turn<()>, Failure> {
        let database = self.world.begin()?;
        let (seen, left) = (BTreeSet::new(), self.left);
        let mut batch = Batch { world: self.world, database, seen, fails_at_commit: false, left };
        let tally = together(messages, room, &mut batch)?;
        let Batch { database, fails_at_commit, .. } = batch;
        self.world.commit(database, fails_at_commit)?;
        Ok(Turn::Done(tally))
    }

    fn note(&mut self, one: &Kept) -> Result<Option<i64>, Failure> {
        let mut database = self.world.begin()?;
        match database.pending.get_mut(&one.id) {
            Some(row) if !row.processing && row.attempts == one.attempts => {
                row.processing = true;
                row.attempts += 1;
            }
            _ => return Ok(None),
        }
        first(&mut database, one.message);
        self.world.commit(database, false)?;
        Ok(Some(one.id))
    }
}
