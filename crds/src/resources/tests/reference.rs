//! The reference of a resource as a page: every field with its type, default, bounds and meaning, from
//! the same schema that `kubectl explain` reads.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// Fields of Kubernetes' own types, which its documentation describes.
const THEIRS: [(&str, &str); 7] = [
    ("affinity", "NodeAffinity"),
    ("conditions", "[]Condition"),
    ("env", "[]EnvVar"),
    ("resources", "ResourceRequirements"),
    ("seLinuxOptions", "SELinuxOptions"),
    ("selector", "LabelSelector"),
    ("tolerations", "[]Toleration"),
];

pub(super) fn page(definition: &CustomResourceDefinition) -> String {
    let names = &definition.spec.names;
    let version = &definition.spec.versions[0];
    let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    let schema = serde_json::to_value(schema.unwrap()).unwrap();
    let mut page = format!(
        "# {}\n\n<!-- Generated: UPDATE_CRDS=1 cargo test --workspace crd -->\n\n\
         `apiVersion: {}/{}`, cluster-scoped, short name `{}`, category `larder`. {}\n",
        names.kind,
        definition.spec.group,
        version.name,
        names.short_names.as_ref().unwrap().join(", "),
        cell(schema["description"].as_str().unwrap()),
    );
    for rule in rules(&schema) {
        writeln!(page, "\nRule: \"{rule}\".").unwrap();
    }
    for part in ["spec", "status"] {
        let root = &schema["properties"][part];
        write!(
            page,
            "\n## {part}\n\n{}\n\n| field | type | default | meaning |\n|---|---|---|---|\n",
            cell(root["description"].as_str().unwrap_or_default())
        )
        .unwrap();
        let mut rows = String::new();
        fields("", root, &mut rows);
        // Nobody writes a status.
        page += &if part == "status" { rows.replace(" | required | ", " |  | ") } else { rows };
    }
    page.replace("\n\n\n", "\n\n")
}

fn fields(place: &str, schema: &Value, page: &mut String) {
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
    for (name, field) in schema["properties"].as_object().unwrap() {
        let place = format!("{place}{name}");
        let theirs = THEIRS.iter().find(|(field, _)| field == name).map(|(_, kind)| *kind);
        let kind = theirs.map_or_else(|| kind(field), ToOwned::to_owned);
        let default = match &field["default"] {
            Value::Null if required.contains(&&Value::String(name.clone())) => {
                "required".to_owned()
            }
            // Made of the defaults below it.
            Value::Null | Value::Object(_) => String::new(),
            value => format!("`{value}`"),
        };
        let mut meaning = vec![cell(field["description"].as_str().unwrap_or_default())];
        assert!(!meaning[0].is_empty(), "{place} has no description");
        meaning.extend(bounds(field));
        let items = &field["items"];
        let of_items = bounds(items);
        if !of_items.is_empty() && theirs.is_none() {
            meaning.push(format!("Each: {}", of_items.join(" ")));
        }
        let rules = rules(field).chain(rules(items)).map(|rule| format!("Rule: \"{rule}\"."));
        meaning.extend(rules);
        writeln!(page, "| `{place}` | {kind} | {default} | {} |", meaning.join(" ")).unwrap();
        if theirs.is_some() {
            continue;
        }
        if field["properties"].is_object() {
            fields(&format!("{place}."), field, page);
        } else if items["properties"].is_object() {
            fields(&format!("{place}[]."), items, page);
        }
    }
}

fn kind(schema: &Value) -> String {
    if schema["x-kubernetes-int-or-string"] == true {
        return "integer or string".to_owned();
    }
    match schema["type"].as_str().unwrap() {
        "array" => format!("[]{}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map of {}", kind(&schema["additionalProperties"]))
        }
        other => other.to_owned(),
    }
}

fn bounds(schema: &Value) -> Vec<String> {
    let mut bounds = Vec::new();
    if let Some(words) = schema["enum"].as_array() {
        let words = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`"));
        bounds.push(format!("One of {}.", words.collect::<Vec<_>>().join(", ")));
    }
    for (least, most, unit) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
        ("minProperties", "maxProperties", " entries"),
    ] {
        match (schema[least].as_f64(), schema[most].as_f64()) {
            (Some(least), Some(most)) => bounds.push(format!("{least} to {most}{unit}.")),
            (None, Some(most)) => bounds.push(format!("Up to {most}{unit}.")),
            (Some(least), None) => bounds.push(format!("At least {least}{unit}.")),
            (None, None) => {}
        }
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        bounds.push(format!("Pattern: `{}`.", pattern.replace('|', "\\|")));
    }
    bounds
}

fn rules(schema: &Value) -> impl Iterator<Item = String> {
    let rules = schema["x-kubernetes-validations"].as_array();
    rules.into_iter().flatten().filter_map(|rule| Some(cell(rule["message"].as_str()?)))
}

/// A text for a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
