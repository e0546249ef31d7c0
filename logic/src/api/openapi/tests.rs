//! What holds for the whole document: it and the calls agree, and what it refers to exists.

use std::collections::BTreeSet;

use super::*;
use crate::api::calls;
use crate::problem::Known;
use crate::problem::Refusal;

fn whole() -> Value {
    document(&LogicConfig::default())
}

/// (method, path) of each operation.
fn operations(document: &Value) -> impl Iterator<Item = (String, String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, item)| {
        item.as_object().expect("methods").iter().map(|(m, op)| (m.to_ascii_uppercase(), path.clone(), op))
    })
}

fn walk<'v>(value: &'v Value, visit: &mut dyn FnMut(&'v Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            visit(map);
            map.values().for_each(|v| walk(v, visit));
        }
        Value::Array(list) => list.iter().for_each(|v| walk(v, visit)),
        _ => {}
    }
}

#[test]
fn calls_and_document_have_the_same_methods_and_paths() {
    let document = whole();

    let described: BTreeSet<_> = operations(&document).map(|(method, path, _)| (method, path)).collect();
    let known: Vec<_> = calls::all().map(|c| (c.method.to_string(), c.path.to_owned())).collect();

    assert_eq!(known.len(), described.len(), "a method and path is taken twice");
    assert_eq!(known.into_iter().collect::<BTreeSet<_>>(), described);
}

#[test]
fn names_of_calls_are_distinct() {
    let mut seen = BTreeSet::new();

    let twice: Vec<_> = calls::all().map(|c| c.name).filter(|name| !seen.insert(*name)).collect();

    assert_eq!(twice, Vec::<&str>::new());
}

#[test]
fn parameters_of_a_path_are_described_and_no_others() {
    for (method, path, operation) in operations(&whole()) {
        let in_path = path.split(['{', '}']).skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
        let parameters = operation["parameters"].as_array().expect("a list").iter();
        let described = parameters.filter(|p| p["in"] == "path").filter_map(|p| p["name"].as_str());

        assert_eq!(described.map(str::to_owned).collect::<BTreeSet<_>>(), in_path, "{method} {path}");
    }
}

#[test]
fn every_operation_says_what_it_does_and_answers() {
    for (method, path, operation) in operations(&whole()) {
        let succeeds = operation["responses"].as_object().expect("responses").keys().any(|s| s.starts_with('2'));

        assert!(operation["summary"].is_string() && succeeds, "{method} {path}");
        assert_eq!(operation["security"] == json!([]), operation["responses"].get("401").is_none(), "{method} {path}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = whole();
    let mut lost = Vec::new();

    walk(&document, &mut |map| {
        if let Some(target) = map.get("$ref").and_then(Value::as_str) {
            lost.extend(document.pointer(&target[1..]).is_none().then_some(target));
        }
    });

    assert_eq!(lost, Vec::<&str>::new());
}

/// What is refused before a call is known (405) is in the introduction.
#[test]
fn every_code_is_documented_and_every_documented_code_exists() {
    let document = whole();
    let mut documented: BTreeSet<&str> = ["wrong_method"].into();

    for part in operations(&document).map(|(_, _, operation)| operation).chain([&document["components"]["responses"]]) {
        walk(part, &mut |map| {
            if let Some(codes) = map.get("code").and_then(|c| c["enum"].as_array()) {
                documented.extend(codes.iter().filter_map(Value::as_str));
            }
        });
    }

    assert_eq!(documented, rules::ALL.iter().map(|rules| rules.code).collect());
}

#[test]
fn the_document_has_the_limits_of_the_node_and_not_the_defaults() {
    let mut config = LogicConfig::default();
    config.limits.messages = 7;
    config.limits.page_max = 55;

    let document = document(&config);

    assert_eq!(document["components"]["schemas"]["Push"]["properties"]["messages"]["maxItems"], 7);
    let limits = |p: &&Value| p["name"] == "limit";
    let list = document["paths"]["/v1/rooms"]["get"]["parameters"].as_array().expect("a list");
    assert_eq!(list.iter().find(limits).expect("paged")["schema"]["maximum"], 55);
}

/// One kind of refusal has no member that another has, so two make the whole.
#[test]
fn a_problem_is_as_the_document_says() {
    let known = Known { id: "c".into(), delivered: 1, connected: true, took_ms: 5, reply: None };
    let refusals =
        [Refusal::LoneSurrogate { pointer: "/message".into() }, Refusal::CommandTimeout { known: Box::new(known) }];
    let problems = refusals.map(|refusal| serde_json::to_value(refusal.document()).expect("JSON"));
    let schema = &whole()["components"]["schemas"]["Problem"];

    let members = problems.iter().flat_map(|p| p.as_object().expect("an object").keys());
    let properties = schema["properties"].as_object().expect("properties").keys();
    assert_eq!(members.collect::<BTreeSet<_>>(), properties.collect::<BTreeSet<_>>());
    for name in schema["required"].as_array().expect("a list") {
        let name = name.as_str().expect("a name");
        assert!(problems.iter().all(|problem| problem.get(name).is_some()), "{name}");
    }
}
