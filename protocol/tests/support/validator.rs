//! As much of JSON Schema 2020-12 as the protocol's schema uses, and stricter: a member that a shape does not name is a mistake,
//! unless the shape says that more may come. A keyword that is not known here fails the test that meets it.

use serde_json::Value;

/// Keywords that forbid nothing.
const SILENT: &[&str] = &["$schema", "$defs", "title", "description", "format", "additionalProperties", "properties"];

/// Whether `value` is what `schema` says, a schema of the document `root`.
pub fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(keywords) = schema else { return schema.as_bool().expect("a schema is an object or a bool") };
    let all_known = keywords.get("properties").is_none_or(|known| {
        let members = value.as_object().into_iter().flatten();
        let takes_more = schema["additionalProperties"] == true;
        members.into_iter().all(|(name, value)| known.get(name).map_or(takes_more, |schema| fits(root, schema, value)))
    });
    all_known && keywords.iter().all(|(keyword, says)| holds(root, (keyword, says), value))
}

fn holds(root: &Value, (keyword, says): (&str, &Value), value: &Value) -> bool {
    let list = || says.as_array().expect("a list").iter();
    let length = || value.as_array().map(|items| items.len() as u64);
    match keyword {
        "$ref" => {
            let place = says.as_str().and_then(|to| to.strip_prefix('#')).expect("a place in this document");
            fits(root, root.pointer(place).unwrap_or_else(|| panic!("{place} is there")), value)
        }
        "anyOf" => list().any(|schema| fits(root, schema, value)),
        "oneOf" => list().filter(|schema| fits(root, schema, value)).count() == 1,
        "const" => value == says,
        "enum" => list().any(|one| one == value),
        "type" => match says {
            Value::Array(types) => types.iter().any(|one| is_a(value, one)),
            one => is_a(value, one),
        },
        "required" => list().all(|name| value.get(name.as_str().expect("a name")).is_some()),
        "items" => value.as_array().into_iter().flatten().all(|item| fits(root, says, item)),
        "minItems" => length().is_none_or(|length| length >= says.as_u64().expect("a number")),
        "maxItems" => length().is_none_or(|length| length <= says.as_u64().expect("a number")),
        "minimum" => value.as_f64().is_none_or(|number| number >= says.as_f64().expect("a number")),
        other => {
            assert!(SILENT.contains(&other), "the keyword {other:?} is not known here");
            true
        }
    }
}

fn is_a(value: &Value, kind: &Value) -> bool {
    match kind.as_str().expect("a type's name") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{other:?} is no type"),
    }
}
