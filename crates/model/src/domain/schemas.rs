//! The schemas in `schemas/events`, against their examples and against what is built here. What is really sent and stored is
//! checked end to end.

use std::fs;
use std::path::{Path, PathBuf};

use sea_mq_contracts::event_key::BASE_URI;
use sea_mq_contracts::schema::Schema;
use serde_json::Value;

use super::envelope::{BodyFormat, Form, Publication};
use super::event::{Defaults, EmitArgs, Event};

const SUFFIX: &str = ".schema.json";

fn directory() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/events")).into()
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compile(name: &str) -> Schema {
    let schema = read(&directory().join(format!("{name}{SUFFIX}")));
    let uri = format!("{BASE_URI}{name}{SUFFIX}");
    assert_eq!(schema["$id"], uri, "a schema is named after its place");
    Schema::compile(&schema, &uri, |_| None).unwrap_or_else(|invalid| panic!("{name}: {invalid}"))
}

/// The schemas of sea_mq itself, by place.
fn names() -> Vec<String> {
    let below = |folder: &str| fs::read_dir(directory().join(folder)).expect("a folder").flatten().collect::<Vec<_>>();
    let name = |folder: &str, file: &str| Some(format!("{folder}{}", file.strip_suffix(SUFFIX)?));
    ["", "messaging/"]
        .iter()
        .flat_map(|folder| below(folder).into_iter().filter_map(|file| name(folder, file.file_name().to_str()?)))
        .collect()
}

#[test]
fn every_schema_has_an_example_that_it_takes_and_describes_all_that_it_lists() {
    let names = names();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let example = read(&directory().join("examples").join(format!("{name}.example.json")));
        assert_eq!(compile(&name).violations(&example), [], "{name}");
        let schema = read(&directory().join(format!("{name}{SUFFIX}")));
        let properties = schema["properties"].as_object().expect("properties");
        for (property, described) in properties {
            assert!(described["description"].is_string(), "{name}: {property}");
        }
        for member in example.as_object().expect("an object").keys() {
            assert!(properties.contains_key(member), "{name}: {member}");
        }
        assert!(!compile(&name).violations(&serde_json::json!({})).is_empty(), "{name} demands nothing");
    }
}

#[test]
fn every_envelope_adheres_to_its_schema() {
    let schema = compile("envelope-v1");
    let strange = "ä \"b\" \\ 100% \u{1f41f}";
    for text in ["42", strange] {
        let args = EmitArgs {
            aggregate_type: Some(text.into()),
            aggregate_id: Some(text.into()),
            event_type: Some("Ordered\"%/ü".into()),
            payload: Some("[null]".into()),
            event_version: Some(i32::MAX),
            context: Some("örders%".into()),
            correlation_id: Some(text.into()),
            causation_id: Some(text.into()),
            visibility: Some("partner".into()),
            ..EmitArgs::default()
        };
        let event = Event::new(args, &Defaults::default()).unwrap();
        for uri in [None, Some("sea-mq:/x")] {
            let body = Publication::new(&event, uri).message(Form::full(BodyFormat::Envelope)).body;
            let envelope: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(schema.violations(&envelope), []);
            assert_eq!(envelope["aggregateid"], text);
        }
    }
}
