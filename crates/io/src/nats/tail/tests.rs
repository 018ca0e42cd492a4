use super::*;

#[test]
fn an_id_is_found_in_a_malformed_header_block() {
    let message_id = |headers: &str| header(headers, NATS_MESSAGE_ID.as_ref());
    let block = |text: &[u8]| BASE64.encode(text);
    assert_eq!(message_id(&block(b"NATS/1.0\r\nno colon\r\nnats-msg-id: 7\r\n\r\n")).as_deref(), Some("7"));
    assert_eq!(message_id(&block(b"NATS/1.0\r\nX: \xff\xfe\r\nNats-Msg-Id:a:b\r\n\r\n")).as_deref(), Some("a:b"));
    assert_eq!(message_id(""), None);
    assert_eq!(message_id("?"), None);
}

#[test]
fn a_read_that_never_ends_is_tried_another_way() {
    for tries in 1..=3 {
        assert_eq!(Reading::begin("NEVER").tries, tries);
    }
    Reading::begin("NEVER").end();
    assert_eq!(Reading::begin("NEVER").tries, 1);
}

#[test]
fn each_message_gets_its_own_id_back() {
    let wanted = [(1, Some("a")), (4, None), (5, Some("")), (9, Some("bcd"))];
    let mut found = Found::default();
    for (sequence, id) in wanted {
        found.push(sequence, id, About { counted: sequence > 4, digest: sequence });
    }
    let expected = wanted.map(|(sequence, id)| Sighted {
        sequence,
        message_id: id.map(str::to_owned),
        counted: sequence > 4,
        digest: sequence,
    });
    assert!(found.into_messages().eq(expected));
}
