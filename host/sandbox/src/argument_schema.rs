//! The JSON Schema of a flow's arguments, closed: a field that it does not know is refused, unless it says otherwise.
//!
//! JSON Schema lets an object have any field beside those it names, and so do serde's structs: a field whose name is
//! misspelt would be passed over. So an object schema with `properties` that is silent about others gets
//! `additionalProperties: false`. Where several schemas describe one object together (`allOf`, a `$ref` beside
//! `properties`), each must leave the fields of the others alone: there the whole gets `unevaluatedProperties: false`
//! (JSON Schema 2020-12, core §10.3.2.3 and §11.3). A schema that says anything about further fields itself, or that
//! names none, stays as it is.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// Keywords by which an object schema says itself what becomes of further fields.
const SAYS_SO: [&str; 4] = ["additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames"];
/// Keywords whose schemas describe the same value: one of the list, all of the list, or one alone.
const ALTERNATIVES: [&str; 2] = ["anyOf", "oneOf"];
const CONDITIONS: [&str; 4] = ["if", "then", "else", "not"];
/// Keywords whose schemas describe other values: those within.
const WITHIN: [&str; 5] = ["items", "contains", "additionalProperties", "unevaluatedProperties", "unevaluatedItems"];
const WITHIN_BY_NAME: [&str; 2] = ["properties", "patternProperties"];

/// Closes a schema.
pub(crate) fn close(schema: &mut Value) {
    let whole = schema.clone();
    let mut closing = Closing { whole: &whole, shared: HashSet::new() };
    closing.find_shared();
    closing.close(schema, false);
    for (definitions, prefix) in [("$defs", "#/$defs/"), ("definitions", "#/definitions/")] {
        let Some(definitions) = schema.get_mut(definitions).and_then(Value::as_object_mut) else { continue };
        for (name, definition) in definitions {
            let shared = closing.shared.contains(&format!("{prefix}{}", escaped(name)));
            closing.close(definition, shared);
        }
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// What further fields mean to a schema.
#[derive(Clone, Copy, PartialEq)]
enum Fields {
    /// It names some, or says itself what becomes of others.
    Named,
    /// It lets any object through.
    Any,
    /// It is not about objects.
    None,
}

struct Closing<'a> {
    /// The schema as it was.
    whole: &'a Value,
    /// Definitions that describe an object together with other schemas somewhere: they stay open, and are closed where
    /// they stand alone.
    shared: HashSet<String>,
}

impl Closing<'_> {
    /// Looks at all places until no more is learnt: a definition can be shared through another.
    fn find_shared(&mut self) {
        loop {
            let before = self.shared.len();
            let whole = self.whole;
            self.look(whole, false);
            for (key, prefix) in [("$defs", "#/$defs/"), ("definitions", "#/definitions/")] {
                for (name, definition) in whole.get(key).and_then(Value::as_object).into_iter().flatten() {
                    let shared = self.shared.contains(&format!("{prefix}{}", escaped(name)));
                    self.look(definition, shared);
                }
            }
            if self.shared.len() == before {
                return;
            }
        }
    }

    fn look(&mut self, schema: &Value, together: bool) {
        let Some(object) = schema.as_object() else { return };
        let together = together || is_composed(object);
        if let (true, Some(Value::String(target))) = (together, object.get("$ref")) {
            self.shared.insert(target.clone());
        }
        same_value(object).for_each(|part| self.look(part, together));
        other_values(object).for_each(|part| self.look(part, false));
    }

    /// `together`: other schemas describe the same object.
    fn close(&self, schema: &mut Value, together: bool) {
        let fields = self.fields(schema, &mut Vec::new());
        let Some(object) = schema.as_object_mut() else { return };
        let composed = is_composed(object);
        let silent = !SAYS_SO.iter().any(|keyword| object.contains_key(*keyword));
        let parts_are_together = together || composed;
        same_value_mut(object).for_each(|part| self.close(part, parts_are_together));
        other_values_mut(object).for_each(|part| self.close(part, false));
        if together || !silent || fields != Fields::Named {
            return;
        }
        let to_shared = object.get("$ref").and_then(Value::as_str).is_some_and(|target| self.shared.contains(target));
        if composed || to_shared {
            object.insert("unevaluatedProperties".to_owned(), Value::Bool(false));
        } else if object.contains_key("properties") {
            object.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
    }

    /// `seen`: references that are being followed.
    fn fields(&self, schema: &Value, seen: &mut Vec<String>) -> Fields {
        let Some(object) = schema.as_object() else {
            return if *schema == Value::Bool(false) { Fields::None } else { Fields::Any };
        };
        if !admits_objects(object) {
            return Fields::None;
        }
        if object.contains_key("properties") || SAYS_SO.iter().any(|keyword| object.contains_key(*keyword)) {
            return Fields::Named;
        }
        let mut all = Vec::new();
        if let Some(target) = object.get("$ref").and_then(Value::as_str) {
            all.push(self.fields_of_target(target, seen));
        }
        if let Some(parts) = object.get("allOf").and_then(Value::as_array) {
            all.extend(parts.iter().map(|part| self.fields(part, seen)));
        }
        for keyword in ALTERNATIVES {
            let Some(parts) = object.get(keyword).and_then(Value::as_array) else { continue };
            let parts: Vec<Fields> = parts.iter().map(|part| self.fields(part, seen)).collect();
            // One alternative that takes any object makes the whole take any.
            let worst = [Fields::Any, Fields::Named].into_iter().find(|fields| parts.contains(fields));
            all.push(worst.unwrap_or(Fields::None));
        }
        // What all of them say holds: one that names fields is enough.
        let best = [Fields::Named, Fields::None].into_iter().find(|fields| all.contains(fields));
        best.unwrap_or(Fields::Any)
    }

    fn fields_of_target(&self, target: &str, seen: &mut Vec<String>) -> Fields {
        if seen.iter().any(|other| other == target) {
            return Fields::Any;
        }
        let Some(schema) = target.strip_prefix('#').and_then(|pointer| self.whole.pointer(pointer)) else {
            return Fields::Any;
        };
        seen.push(target.to_owned());
        let fields = self.fields(schema, seen);
        seen.pop();
        fields
    }
}

/// Whether more than one schema describes the object.
fn is_composed(object: &Map<String, Value>) -> bool {
    let own = usize::from(object.contains_key("properties"));
    let one_of_many = ALTERNATIVES.iter().filter(|keyword| object.contains_key(**keyword)).count();
    let conditions = CONDITIONS.iter().any(|keyword| object.contains_key(*keyword));
    let parts = own + usize::from(object.contains_key("$ref")) + one_of_many;
    parts > 1 || conditions || object.contains_key("allOf") || object.contains_key("dependentSchemas")
}

fn admits_objects(object: &Map<String, Value>) -> bool {
    if object.contains_key("const") || object.contains_key("enum") {
        return false;
    }
    match object.get("type") {
        Some(Value::String(name)) => name == "object",
        Some(Value::Array(names)) => names.iter().any(|name| name == "object"),
        _ => true,
    }
}

fn same_value(object: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    object.iter().flat_map(|(keyword, value)| parts_of_same(keyword).then(|| children(value)).into_iter().flatten())
}

fn other_values(object: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    object.iter().flat_map(|(keyword, value)| within(keyword, value).into_iter())
}

fn same_value_mut(object: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    object.iter_mut().flat_map(|(keyword, value)| match parts_of_same(keyword) {
        true => children_mut(value),
        false => Vec::new(),
    })
}

fn other_values_mut(object: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    object.iter_mut().flat_map(|(keyword, value)| within_mut(keyword, value))
}

fn parts_of_same(keyword: &str) -> bool {
    ALTERNATIVES.contains(&keyword) || CONDITIONS.contains(&keyword) || matches!(keyword, "allOf" | "dependentSchemas")
}

/// The schemas in a list or under names, or the schema itself.
fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        other => vec![other],
    }
}

fn children_mut(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Array(list) => list.iter_mut().collect(),
        other => vec![other],
    }
}

fn within<'a>(keyword: &str, value: &'a Value) -> Vec<&'a Value> {
    if WITHIN_BY_NAME.contains(&keyword) {
        return value.as_object().into_iter().flat_map(Map::values).collect();
    }
    if value.is_array() && matches!(keyword, "prefixItems" | "items") {
        return value.as_array().into_iter().flatten().collect();
    }
    if WITHIN.contains(&keyword) { vec![value] } else { Vec::new() }
}

fn within_mut<'a>(keyword: &str, value: &'a mut Value) -> Vec<&'a mut Value> {
    if WITHIN_BY_NAME.contains(&keyword) {
        return value.as_object_mut().into_iter().flat_map(Map::values_mut).collect();
    }
    if value.is_array() && matches!(keyword, "prefixItems" | "items") {
        return value.as_array_mut().into_iter().flatten().collect();
    }
    if WITHIN.contains(&keyword) { vec![value] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn closed(mut schema: Value) -> Value {
        close(&mut schema);
        schema
    }

    #[test]
    fn objects_that_name_fields_are_closed_wherever_they_stand() {
        let object = || json!({"type": "object", "properties": {"a": true}});
        let done = || json!({"type": "object", "properties": {"a": true}, "additionalProperties": false});
        assert_eq!(closed(object()), done());
        for keyword in ["items", "additionalProperties", "contains"] {
            assert_eq!(closed(json!({"type": "array", keyword: object()})), json!({"type": "array", keyword: done()}));
        }
        assert_eq!(
            closed(json!({"type": "object", "properties": {"x": object()}, "$defs": {"d": object()}})),
            json!({"type": "object", "properties": {"x": done()}, "$defs": {"d": done()}, "additionalProperties": false}),
        );
        assert_eq!(
            closed(json!({"prefixItems": [object(), {"type": "string"}]})),
            json!({"prefixItems": [done(), {"type": "string"}]})
        );
        // An optional struct, and an enum of structs.
        assert_eq!(
            closed(json!({"anyOf": [object(), {"type": "null"}]})),
            json!({"anyOf": [done(), {"type": "null"}]})
        );
        assert_eq!(closed(json!({"oneOf": [object(), object()]})), json!({"oneOf": [done(), done()]}));
    }

    #[test]
    fn what_a_schema_says_itself_stays() {
        for schema in [
            json!(true),
            json!({}),
            json!({"type": "object"}),
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"type": "object", "properties": {"a": true}, "additionalProperties": true}),
            json!({"type": "object", "properties": {"a": true}, "patternProperties": {"^x": true}}),
            json!({"type": "object", "properties": {"a": true}, "unevaluatedProperties": {"type": "string"}}),
            json!({"const": {"properties": {}}}),
            json!({"default": {"properties": {}}, "examples": [{"properties": {}}]}),
        ] {
            assert_eq!(closed(schema.clone()), schema);
        }
    }

    /// What an internally tagged enum and a flattened enum become.
    #[test]
    fn schemas_that_describe_an_object_together_are_closed_as_a_whole() {
        let tagged = json!({
            "oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}}, "$ref": "#/$defs/inner"}],
            "$defs": {"inner": {"type": "object", "properties": {"b": true}}},
        });
        let mut expected = tagged.clone();
        expected["oneOf"][0]["unevaluatedProperties"] = false.into();
        assert_eq!(closed(tagged), expected);

        let flattened = json!({
            "type": "object",
            "properties": {"a": true},
            "oneOf": [{"type": "object", "properties": {"x": true}}, {"type": "object", "properties": {"y": true}}],
        });
        let mut expected = flattened.clone();
        expected["unevaluatedProperties"] = false.into();
        assert_eq!(closed(flattened), expected);
    }

    #[test]
    fn a_shared_definition_is_closed_where_it_stands_alone() {
        let schema = json!({
            "type": "object",
            "properties": {
                "alone": {"$ref": "#/$defs/shared"},
                "together": {"allOf": [{"$ref": "#/$defs/through"}, {"properties": {"more": true}}]},
                "other": {"$ref": "#/$defs/other"},
            },
            "$defs": {
                "shared": {"type": "object", "properties": {"a": {"$ref": "#/$defs/shared"}}},
                "through": {"$ref": "#/$defs/shared"},
                "other": {"type": "object", "properties": {"b": true}},
            },
        });
        let mut expected = schema.clone();
        expected["additionalProperties"] = false.into();
        expected["properties"]["alone"]["unevaluatedProperties"] = false.into();
        expected["properties"]["together"]["unevaluatedProperties"] = false.into();
        expected["$defs"]["shared"]["properties"]["a"]["unevaluatedProperties"] = false.into();
        expected["$defs"]["other"]["additionalProperties"] = false.into();
        assert_eq!(closed(schema), expected);
    }

    #[test]
    fn an_alternative_that_takes_anything_goes_on_taking_it() {
        let schema = json!({"anyOf": [{"$ref": "#/$defs/shared"}, true], "allOf": [{"$ref": "#/$defs/shared"}],
            "$defs": {"shared": {"$ref": "#/$defs/shared"}}});
        assert_eq!(closed(schema.clone()), schema);
    }
}
