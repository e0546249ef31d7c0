//! What passes the one check every reader can take, and an object is one only where its members have names.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;

#[test]
fn what_strict_readers_refuse_or_bend_is_unsound() {
    let of = |text: &str| check(text.as_bytes(), 4).err();

    for sound in [
        "1e308",
        "-1.7976931348623157e308",
        "1e-400",
        "0e999",
        "0.0000e400",
        "123456789012345678901234567890",
        r#""\ud83d\ude00""#,
        r#""\\ud800""#,
        r#""1e999""#,
        r#""\"1e999""#,
        r#"{"a\\":"[[[[[[","b":[[[]]]}"#,
        r#""\u00e9\ue000\ud7ff""#,
    ] {
        assert_eq!(of(sound), None, "{sound}");
    }
    for infinite in ["1e999", "-1e309", "[0,1E+400]", r#"{"a":1e999}"#, "1000e306", "1.8e308"] {
        assert_eq!(of(infinite), Some(Unsound::Number), "{infinite}");
    }
    assert_eq!(of(&"9".repeat(310)), Some(Unsound::Number));
    for half in [
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\uDFFF\uD800""#,
        r#""\ud800x""#,
        r#""\ud800\u0041""#,
        r#""\ud800\\dc00""#,
        r#"{"\ud800":1}"#,
        r#"["long enough for a word \ud83d",1]"#,
    ] {
        assert_eq!(of(half), Some(Unsound::Surrogate), "{half}");
    }
    assert_eq!(of("[[[[1]]]]"), None);
    assert_eq!(of(r#"[[[{"a":[]}]]]"#), Some(Unsound::TooDeep(4)));
}

#[test]
fn depth_leaves_strings_out() {
    assert_eq!(depth(br#"{"a":"[[[\"[[","b":[{}]}"#), 3);
    assert_eq!(depth(br#"["never closed [[["#), 1);
}

proptest! {
    /// No bytes make it panic, and a text that is cut anywhere neither.
    #[test]
    fn no_bytes_are_a_danger(text in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = (check(&text, 64), depth(&text));
    }

    /// What passes is what a reader that builds values takes, no more and no less.
    #[test]
    fn what_passes_is_what_a_strict_reader_takes(
        text in r#"([\[\]{},:]|"(a|\\\\|\\u|\\ud83d|\\ude00|\\u0041|\\n|long enough for words){0,4}"|-?[0-9]{1,4}(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,4})?|null| ){0,10}"#
    ) {
        if serde_json::from_str::<&RawValue>(&text).is_ok() {
            let strict = serde_json::from_str::<Value>(&text);
            prop_assert_eq!(check(text.as_bytes(), 64).is_ok(), strict.is_ok(), "{}: {:?}", text, strict);
        }
    }

    /// Where a string ends is found as byte by byte.
    #[test]
    fn a_word_at_a_time_finds_the_first(text in r#"[a-d"\\é]{0,40}"#, at in 0usize..8) {
        let text = &text.as_bytes()[at.min(text.len())..];
        let slowly = text.iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(text.len());
        prop_assert_eq!(plain(text), slowly);
    }
}

#[derive(Debug, serde::Deserialize)]
struct Outer<'a> {
    name: &'a str,
    inner: Option<Inner>,
    #[serde(borrow)]
    raw: Option<&'a RawValue>,
    #[serde(default)]
    list: Vec<Inner>,
    #[serde(default)]
    names: BTreeMap<String, Inner>,
    pair: Option<(u8, Inner)>,
    choice: Option<Choice>,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
struct Inner {
    n: u8,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
enum Choice {
    Unit,
    New(Inner),
    Named { n: u8 },
}

#[test]
fn an_object_is_read_as_ever_and_what_can_be_lent_is_lent() {
    let text = r#"{"name":"a","inner":{"n":1},"raw":[1, {"x":2}],"list":[{"n":2}],"names":{"b":{"n":3},"c":{"n":4}},
        "pair":[5,{"n":6}],"choice":{"New":{"n":7}},"later":[[]]}"#;

    let outer: Outer<'_> = from_str(text).expect("an object");

    assert_eq!((outer.name, outer.raw.map(RawValue::get)), ("a", Some(r#"[1, {"x":2}]"#)));
    assert_eq!((outer.inner, outer.list), (Some(Inner { n: 1 }), vec![Inner { n: 2 }]));
    assert_eq!(outer.names.into_values().map(|inner| inner.n).collect::<Vec<_>>(), [3, 4]);
    assert_eq!((outer.pair, outer.choice), (Some((5, Inner { n: 6 })), Some(Choice::New(Inner { n: 7 }))));
    assert_eq!(from_str::<Choice>(r#""Unit""#).expect("a choice"), Choice::Unit);
    assert_eq!(from_str::<Choice>(r#"{"Named":{"n":1}}"#).expect("a choice"), Choice::Named { n: 1 });
    assert_eq!(from_slice::<Vec<u8>>(b" [1,2] ").expect("a list"), [1, 2]);
}

#[test]
fn a_list_is_no_object_at_any_depth() {
    for (text, plainly) in [
        (r#"["a",null,null,[],{},null,null]"#, true),
        (r#"{"name":"a","inner":[1]}"#, true),
        (r#"{"name":"a","list":[[1]]}"#, true),
        (r#"{"name":"a","names":{"b":[1]}}"#, true),
        (r#"{"name":"a","pair":[1,[2]]}"#, true),
        (r#"{"name":"a","choice":{"New":[1]}}"#, true),
        (r#"{"name":"a","choice":{"Named":[1]}}"#, true),
        (r#"{"name":"a","names":[["b",{"n":1}]]}"#, false),
        (r#"{"name":"a","names":7}"#, false),
        (r#"{"name":"a"} 1"#, false),
    ] {
        assert_eq!(serde_json::from_str::<Outer<'_>>(text).is_ok(), plainly, "{text}");
        assert!(from_str::<Outer<'_>>(text).is_err() && from_slice::<Outer<'_>>(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn a_name_comes_once_however_it_is_escaped() {
    for text in [r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#] {
        let of_map = from_str::<HashMap<String, u8>>(text).expect_err("twice");
        assert!(of_map.to_string().starts_with("duplicate field \"a\""), "{of_map}");
        assert!(from_str::<Value>(text).is_err() && from_str::<Vec<BTreeMap<&str, u8>>>(&format!("[{text}]")).is_err());
    }
    assert!(from_str::<Outer<'_>>(r#"{"name":"a","name":"a"}"#).is_err());
    assert!(from_str::<Outer<'_>>(r#"{"name":"a","names":{"b":{"n":1},"b":{"n":2}}}"#).is_err());
}

#[test]
fn an_empty_list_for_an_object_is_told_what_php_should_write() {
    let inner = from_str::<Outer<'_>>(r#"{"name":"a","inner":[ ]}"#).expect_err("a list");
    let full = from_str::<Outer<'_>>(r#"{"name":"a","inner":[1]}"#).expect_err("a list");

    assert!(is_of_empty_list(&inner) && inner.to_string().contains("new stdClass"), "{inner}");
    assert!(!is_of_empty_list(&full), "{full}");
    let map = from_str::<Outer<'_>>(r#"{"name":"a","names":[]}"#).expect_err("a list");
    assert!(is_of_empty_list(&map), "{map}");
}
