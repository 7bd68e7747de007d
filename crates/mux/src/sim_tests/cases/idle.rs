//! Who asks how long the connection may idle is told our time, also where the backend says nothing of it (RFC 7828).

use super::super::BOUNDS;
use super::super::actors::framed;
use super::{KEEPALIVE, Stage, TSIG, query_with, with_id};
use crate::Matching;

/// EDNS without options, and with one of whose kind nobody knows.
const BARE: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
const OTHER: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6, 0xfd, 0xe9, 0, 2, 7, 7];
/// A query's keepalive option.
const ASKS: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 11, 0, 0];
/// 600 ms.
const OURS: &[u8] = &[0, 11, 0, 2, 0, 6];

/// What the client hears that asks with this record, of an answer with these others.
fn heard(asks: &[u8], answers: &[&[u8]]) -> Vec<u8> {
    let mut stage = Stage::new(Matching::Id, 1, BOUNDS);
    let client = stage.client();
    stage.say(client, &query_with(1, asks));
    let (upstream, heard) = stage.asked().unwrap();
    stage.say(upstream, &with_id(&answer(answers), &heard[2..4]));
    stage.hear(client).0
}

/// An answer with these additional records.
fn answer(records: &[&[u8]]) -> Vec<u8> {
    let mut bytes = query_with(1, &records.concat())[2..].to_vec();
    (bytes[2], bytes[11]) = (0x81, u8::try_from(records.len()).unwrap());
    framed(&bytes)
}

#[test]
fn who_asks_is_told_our_time_where_the_backend_says_none_and_nothing_else_changes() {
    let mut bare = [BARE, OURS].concat();
    bare[10] = 6;
    assert_eq!(heard(ASKS, &[BARE]), answer(&[&bare]));
    let mut other = [OTHER, OURS].concat();
    other[10] = 12;
    assert_eq!(heard(ASKS, &[OTHER]), answer(&[&other]));
    // Bytes behind the last record stay there.
    assert_eq!(heard(ASKS, &[&[BARE, &[1, 2, 3]].concat()]), answer(&[&[&bare[..], &[1, 2, 3]].concat()]));
}

#[test]
fn who_does_not_ask_is_told_nothing() {
    for asks in [BARE, OTHER] {
        assert_eq!(heard(asks, &[BARE]), answer(&[BARE]));
    }
}

#[test]
fn an_answer_that_nothing_may_be_put_into_stays_as_it_is() {
    // Signed; with a record behind, in whose name a pointer might be; without EDNS; its own option is no time.
    let address: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1];
    for records in [&[BARE, TSIG][..], &[BARE, address], &[address], &[], &[ASKS]] {
        assert_eq!(heard(ASKS, records), answer(records));
    }
    let mut theirs = KEEPALIVE.to_vec();
    theirs[15..].copy_from_slice(&[0, 6]);
    assert_eq!(heard(ASKS, &[address, KEEPALIVE]), answer(&[address, &theirs]), "a time of the backend's own");
}
