use harness::Chance;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The arguments of one call; JSON and times as text, as PostgreSQL reads them.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    pub aggregate_type: Option<String>,
    pub aggregate_id: Option<String>,
    pub event_type: Option<String>,
    pub payload: Option<String>,
    pub event_version: Option<i32>,
    pub context: Option<String>,
    pub event_id: Option<Uuid>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub headers: Option<String>,
    pub visibility: Option<String>,
    pub available_at: Option<String>,
}

const FAR: &str = "2999-01-01 00:00:00+00";

impl Arguments {
    /// Mostly good but for one: else hardly any call would be accepted. `types`: the event types to choose from.
    pub fn any(chance: &mut Chance, types: &[&str]) -> Self {
        let mut arguments = Self::good(chance, types);
        match chance.within(0..34) {
            0 => arguments.aggregate_type = odd_text(chance),
            1 => arguments.aggregate_id = odd_text(chance),
            2 => arguments.event_type = (!chance.one_in(9)).then(|| chance.name()),
            3 => arguments.payload = None,
            4 => arguments.event_version = *chance.of(&[None, Some(0), Some(-1), Some(i32::MIN), Some(i32::MAX)]),
            // A context that is accepted gets streams of its own, which takes a while.
            5 if chance.one_in(4) => arguments.context = Some(chance.name()),
            6 => arguments.correlation_id = odd_text(chance),
            7 => arguments.causation_id = odd_text(chance),
            8 => arguments.visibility = chance.of(&[None, Some("secret"), Some(""), Some("PUBLIC")]).map(str::to_owned),
            9..12 => {
                let times =
                    ["infinity", "-infinity", "294276-12-31 23:59:59+00", "4714-11-24 00:00:00+00 BC", "epoch", FAR];
                arguments.available_at = Some((*chance.of(&times)).to_owned());
            }
            12 => arguments.payload = Some(chance.nested(1000)),
            13 => arguments.payload = Some(chance.nested(20_000)),
            14 => arguments.payload = Some(format!("\"{}\"", "x".repeat(chance.within(1_046_000..1_049_000)))),
            15 => arguments.headers = Some(many_headers(chance)),
            16..22 => arguments.headers = Some(chance.headers()),
            22 => arguments.event_id = Some(*chance.of(&[Uuid::nil(), Uuid::max()])),
            23 => arguments.event_id = Some(chance.uuid()),
            _ => {}
        }
        arguments
    }

    fn good(chance: &mut Chance, types: &[&str]) -> Self {
        let contexts = [None, None, Some("orders"), Some("Billing"), Some("shipping")];
        let visibilities = ["public", "partner", "internal", "sensitive"];
        Self {
            aggregate_type: Some("order".to_owned()),
            aggregate_id: Some(chance.within(0..50).to_string()),
            event_type: Some((*chance.of(types)).to_owned()),
            payload: Some(chance.json(3)),
            event_version: Some(chance.within(1..3)),
            context: chance.of(&contexts).map(str::to_owned),
            visibility: (!chance.one_in(4)).then(|| (*chance.of(&visibilities)).to_owned()),
            ..Self::default()
        }
    }

    pub fn held_back(&self) -> bool {
        self.available_at.as_deref().is_some_and(|at| at == FAR || at.starts_with("294276"))
    }

    /// As an element of `emit_many`'s array; JSON text. What is said in another way there is what they are from then on.
    pub fn item(&mut self, chance: &mut Chance) -> String {
        let mut keys = Map::new();
        let mut put = |key: &str, value: Value| drop(keys.insert(key.to_owned(), value));
        let texts = [
            ("aggregate_type", &self.aggregate_type),
            ("aggregate_id", &self.aggregate_id),
            ("event_type", &self.event_type),
            ("context", &self.context),
            ("correlation_id", &self.correlation_id),
            ("causation_id", &self.causation_id),
            ("visibility", &self.visibility),
            ("available_at", &self.available_at),
        ];
        for (key, text) in texts {
            match text {
                Some(text) => put(key, json!(text)),
                None if chance.one_in(3) => put(key, Value::Null),
                None => {}
            }
        }
        put("event_version", json!(self.event_version));
        put("event_id", json!(self.event_id.map(|id| id.to_string())));
        match chance.within(0..60) {
            0 => put("no_such_key", json!(1)),
            1 => put("event_version", json!(1.5)),
            2 => put("event_version", json!(1e20)),
            3 => put("event_id", json!(chance.text(40))),
            4 => put("available_at", json!(chance.text(40))),
            5 => {
                put("aggregate_id", json!(7));
                self.aggregate_id = Some("7".to_owned());
            }
            _ => {}
        }
        // Raw text: what serde_json's values cannot hold.
        let mut object = Value::Object(keys).to_string();
        for (key, json) in [("payload", &self.payload), ("headers", &self.headers)] {
            if let Some(json) = json {
                object.truncate(object.len() - 1);
                object.push_str(&format!(", \"{key}\": {json}}}"));
            }
        }
        // There, null is what is not given.
        self.headers = self.headers.take().filter(|json| json != "null");
        object
    }
}

fn odd_text(chance: &mut Chance) -> Option<String> {
    (!chance.one_in(6)).then(|| chance.text(1200))
}

/// Around what a message of JetStream can have: 64 KiB.
fn many_headers(chance: &mut Chance) -> String {
    let headers = (0..chance.within(50..75)).map(|n| (format!("X-Many-{n}"), json!("x".repeat(1000))));
    Value::Object(headers.collect()).to_string()
}
