//! `docs/bt.schema.json` against what is printed: as much of JSON Schema as the file uses.

use super::*;

/// What in `value` the schema does not allow. An object where an enumeration is expected carries a value with it.
fn problems(schema: &Value, root: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let target = root
            .pointer(name.trim_start_matches('#'))
            .expect("the reference leads somewhere");
        return problems(target, root, value, at, found);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted = &schema["type"];
    let allowed = wanted.is_null()
        || wanted == kind
        || wanted
            .as_array()
            .is_some_and(|kinds| kinds.iter().any(|known| known == kind));
    let listed = schema["enum"]
        .as_array()
        .is_none_or(|known| known.contains(value) || value.is_object());
    if !allowed || !listed {
        found.push(format!("{at}: {value}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        problems(
            &schema["items"],
            root,
            item,
            &format!("{at}/{index}"),
            found,
        );
    }
    if let (Some(properties), Some(fields)) = (schema["properties"].as_object(), value.as_object())
    {
        for (name, field) in fields {
            match properties.get(name) {
                Some(schema) => problems(schema, root, field, &format!("{at}/{name}"), found),
                None => found.push(format!("{at}/{name} is not described")),
            }
        }
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !fields.contains_key(name) {
                found.push(format!("{at}/{name} is missing"));
            }
        }
    }
}

#[test]
fn json_of_a_backtrace_is_what_its_schema_says() {
    let schema =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/bt.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let desk = Desk::new();
    let kept = corpus::fixtures()
        .canonicalize()
        .unwrap()
        .join("bare/products/signal/core");
    for core in [crash().core(), kept] {
        let document = desk.json(&["bt", core.to_str().unwrap(), "-a", "-r", "-o", "json"]);
        let mut found = Vec::new();
        problems(&schema, &schema, &document, "", &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }
}
