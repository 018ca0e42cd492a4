//! The table of worker processes: which kinds a database has, how many of each, and what wakes them.
//!
//! A new kind of process is a row here, a [`Role`], and its entry point in `workers/`.

use std::ffi::CStr;

/// Why a process is woken. A set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasons(u32);

impl Reasons {
    pub const NONE: Self = Self(0);
    /// A transaction with events has committed.
    pub const EVENTS: Self = Self(1);
    /// A transaction has changed descriptions of streams or consumers, or has scheduled events.
    pub const DESCRIPTIONS: Self = Self(1 << 1);
    /// A transaction has changed subscriptions, or there is room for more in the inbox.
    pub const INBOX: Self = Self(1 << 2);
    /// The relay has found or made a stream that consumers may wait for.
    pub const STREAMS: Self = Self(1 << 3);
    /// A transaction has changed endpoints, or made deliveries.
    pub const ENDPOINTS: Self = Self(1 << 4);
    /// Messages were stored that an endpoint may handle.
    pub const MESSAGES: Self = Self(1 << 5);

    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub const fn bits(self) -> u32 {
        self.0
    }

    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub const fn has(self, reason: Self) -> bool {
        self.0 & reason.0 != 0
    }
}

/// One kind of worker process.
pub struct Kind {
    /// As `pg_stat_activity.backend_type` shows it.
    pub name: &'static str,
    /// The function that the process begins with.
    pub entry_point: &'static str,
    /// How many of them a database can have.
    pub count: usize,
    /// Every database with the extension has it. The others come and go as the consumer wants.
    pub standing: bool,
    /// What wakes it from its start on.
    pub hears: Reasons,
    /// What its transactions begin with, beside what those of all workers do.
    pub settings: &'static [(&'static CStr, &'static CStr)],
}

/// What waits comes and goes: a plan made while there is nothing would read the whole table until the next ANALYZE.
const BY_INDEX: &[(&CStr, &CStr)] = &[(c"enable_seqscan", c"off")];

/// Handler processes that a database can have.
pub const HANDLERS: usize = 16;

const TABLE: [Kind; 4] = [
    Kind {
        name: "sea_mq relay",
        entry_point: "sea_mq_relay_main",
        count: 1,
        standing: true,
        hears: Reasons::EVENTS.and(Reasons::DESCRIPTIONS),
        // A lost save of a cursor repeats nothing: the stream's tail is read before anything is published again.
        settings: &[(c"lock_timeout", c"5s"), (c"synchronous_commit", c"off")],
    },
    Kind {
        name: "sea_mq consumer",
        entry_point: "sea_mq_consumer_main",
        count: 1,
        standing: true,
        hears: Reasons::INBOX.and(Reasons::STREAMS),
        settings: BY_INDEX,
    },
    Kind {
        name: "sea_mq handler",
        entry_point: "sea_mq_handler_main",
        count: HANDLERS,
        // The consumer asks for them, and they end when they are idle.
        standing: false,
        hears: Reasons::NONE,
        settings: BY_INDEX,
    },
    Kind {
        name: "sea_mq dispatcher",
        entry_point: "sea_mq_dispatcher_main",
        count: 1,
        // Databases that have endpoints have one.
        standing: false,
        hears: Reasons::EVENTS.and(Reasons::ENDPOINTS).and(Reasons::DESCRIPTIONS).and(Reasons::MESSAGES),
        settings: BY_INDEX,
    },
];

/// Processes that a database can have.
pub const SEATS: usize = {
    let (mut seats, mut at) = (0, 0);
    while at < TABLE.len() {
        seats += TABLE[at].count;
        at += 1;
    }
    seats
};

/// What a worker process is there for. Each has a seat of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Publishes what was emitted.
    Relay,
    /// Takes in what subscriptions deliver, and handles it, or has it handled.
    Consumer,
    /// Handles what the consumer gives it. Numbers count from 0.
    Handler(u8),
    /// Delivers events to endpoints outside.
    Dispatcher,
}

impl Role {
    /// In the order of their seats.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SEATS).filter_map(Self::at)
    }

    /// What every database with the extension has.
    pub fn standing() -> impl Iterator<Item = Self> {
        Self::all().filter(|role| role.kind().standing)
    }

    pub fn handlers() -> impl Iterator<Item = Self> {
        Self::all().filter(|role| matches!(role, Self::Handler(_)))
    }

    pub fn kind(self) -> &'static Kind {
        &TABLE[self.place().0]
    }

    /// The place of its seat. Never out of bounds, whatever its number is.
    pub fn index(self) -> usize {
        let (row, number) = self.place();
        let before: usize = TABLE[..row].iter().map(|kind| kind.count).sum();
        before + number.min(TABLE[row].count - 1)
    }

    /// The role whose seat has this place.
    pub fn at(index: usize) -> Option<Self> {
        let mut number = index;
        for (row, kind) in TABLE.iter().enumerate() {
            if number < kind.count {
                return Some(Self::of(row, u8::try_from(number).unwrap_or(u8::MAX)));
            }
            number -= kind.count;
        }
        None
    }

    /// Its row in the table, and its number among those of its kind.
    fn place(self) -> (usize, usize) {
        match self {
            Self::Relay => (0, 0),
            Self::Consumer => (1, 0),
            Self::Handler(number) => (2, usize::from(number)),
            Self::Dispatcher => (3, 0),
        }
    }

    fn of(row: usize, number: u8) -> Self {
        match row {
            0 => Self::Relay,
            1 => Self::Consumer,
            2 => Self::Handler(number),
            _ => Self::Dispatcher,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_a_seat_of_its_own() {
        let roles: Vec<Role> = Role::all().collect();
        assert_eq!(roles.len(), SEATS);
        assert_eq!(roles.iter().map(|role| role.index()).collect::<Vec<_>>(), (0..SEATS).collect::<Vec<_>>());
        assert_eq!(roles[..3], [Role::Relay, Role::Consumer, Role::Handler(0)]);
        assert_eq!(Role::at(SEATS), None);
        assert_eq!(Role::Handler(u8::MAX).index(), SEATS - 2);
        assert_eq!(Role::at(SEATS - 1), Some(Role::Dispatcher));
        assert_eq!(Role::standing().collect::<Vec<_>>(), [Role::Relay, Role::Consumer]);
        assert_eq!(Role::handlers().count(), HANDLERS);
    }

    #[test]
    fn reasons_are_a_set() {
        let both = Reasons::EVENTS.and(Reasons::STREAMS);
        assert!(both.has(Reasons::EVENTS) && both.has(Reasons::STREAMS) && !both.has(Reasons::INBOX));
        assert_eq!(Reasons::from_bits(both.bits()), both);
        assert!(!Reasons::NONE.has(both));
    }
}
