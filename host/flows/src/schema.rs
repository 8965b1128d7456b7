//! The JSON Schema of a flow's arguments: what fits it, and how it is told what does not.

use jsonschema::error::ValidationErrorKind;
use maxhost_model::{Code, Problem, X500Name};
use serde_json::Value;

/// Whole numbers of a fixed size: what a schema calls them, and their bounds. The keyword `format` alone bounds nothing.
const SIZES: [(&str, i128, i128); 8] = [
    ("int8", i8::MIN as i128, i8::MAX as i128),
    ("int16", i16::MIN as i128, i16::MAX as i128),
    ("int32", i32::MIN as i128, i32::MAX as i128),
    ("int64", i64::MIN as i128, i64::MAX as i128),
    ("uint8", 0, u8::MAX as i128),
    ("uint16", 0, u16::MAX as i128),
    ("uint32", 0, u32::MAX as i128),
    ("uint64", 0, u64::MAX as i128),
];
/// Keywords whose values are data, not schemas.
const DATA: [&str; 4] = ["const", "default", "enum", "examples"];
/// How much of a value is shown, in characters: a message has to fit into the headers of an answer.
const SHOWN: usize = 120;

/// A schema that arguments are checked against.
pub(crate) struct ArgumentSchema {
    schema: Value,
    validator: jsonschema::Validator,
}

impl ArgumentSchema {
    /// Compiles a schema. The names of parties and the sizes of numbers in it become rules, so that what cannot be read
    /// later is refused now.
    ///
    /// # Errors
    /// In words: it is no JSON Schema.
    pub fn new(schema: &Value) -> Result<ArgumentSchema, String> {
        let mut schema = schema.clone();
        bound_numbers(&mut schema);
        let validator = jsonschema::options()
            .with_format("x500-name", |text: &str| X500Name::parse(text).is_ok())
            .should_validate_formats(true)
            .build(&schema)
            .map_err(|error| error.to_string())?;
        Ok(ArgumentSchema { schema, validator })
    }

    /// Checks arguments.
    ///
    /// # Errors
    /// `arguments-invalid`, with the first place that does not fit and what was expected there.
    pub fn check(&self, arguments: &Value, flow: &str) -> Result<(), Problem> {
        let Some(error) = self.validator.iter_errors(arguments).next() else { return Ok(()) };
        let rule = error.schema_path().as_str();
        let found = error.masked_with(shortened(&error.instance().to_string()));
        let mut path = error.instance_path().to_string();
        let (what, expected) = match error.kind() {
            ValidationErrorKind::Required { property } => {
                let property = property.as_str().unwrap_or_default();
                path = format!("{path}/{}", property.replace('~', "~0").replace('/', "~1"));
                let expected = self.property(rule, property);
                (format!("it is missing; expected {expected}"), expected)
            }
            ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
                let expected = self.rule(rule);
                (format!("{found}; expected {expected}"), expected)
            }
            _ => (found.to_string(), self.rule(rule)),
        };
        let place =
            if path.is_empty() { "the arguments".to_owned() } else { format!("arguments{}", path.replace('/', ".")) };
        Err(Problem::new(Code::ArgumentsInvalid, format!("{place} of flow {flow}: {what}"))
            .detail("path", path)
            .detail("expected", expected)
            .detail("flow", flow))
    }

    /// A rule with its keyword: `{"minimum":0}`.
    fn rule(&self, rule: &str) -> String {
        let keyword = rule.rsplit('/').next().unwrap_or_default();
        match self.schema.pointer(rule) {
            Some(value) => shortened(&serde_json::json!({ keyword: value }).to_string()),
            None => rule.to_owned(),
        }
    }

    /// What a property should be that a rule requires.
    fn property(&self, rule: &str, name: &str) -> String {
        let object = rule.strip_suffix("/required").and_then(|object| self.schema.pointer(object));
        match object.and_then(|object| object["properties"].get(name)) {
            Some(property) => shortened(&property.to_string()),
            None => self.rule(rule),
        }
    }
}

/// Gives whole numbers of a fixed size their bounds, where the schema has none.
fn bound_numbers(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(bound_numbers),
        Value::Object(object) => {
            let format = object.get("format").and_then(Value::as_str);
            let size = SIZES.iter().find(|(name, _, _)| Some(*name) == format);
            if let Some((_, least, most)) = size {
                for (keyword, bound) in [("minimum", least), ("maximum", most)] {
                    let bound =
                        i64::try_from(*bound).map(Value::from).or_else(|_| u64::try_from(*bound).map(Value::from));
                    if let (false, Ok(bound)) = (object.contains_key(keyword), bound) {
                        object.insert(keyword.to_owned(), bound);
                    }
                }
            }
            object
                .iter_mut()
                .filter(|(keyword, _)| !DATA.contains(&keyword.as_str()))
                .for_each(|(_, value)| bound_numbers(value));
        }
        _ => {}
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}\u{2026}", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn schema() -> ArgumentSchema {
        let schema = json!({
            "type": "object",
            "properties": {
                "peer": {"type": "string", "format": "x500-name"},
                "count": {"type": "integer", "format": "uint32", "minimum": 0},
                "deep": {"$ref": "#/$defs/deep"},
                "big": {"type": ["integer", "null"], "format": "uint64"},
            },
            "required": ["peer"],
            "$defs": {"deep": {"type": "array", "items": {"type": "integer", "format": "int8"}}},
        });
        ArgumentSchema::new(&schema).unwrap()
    }

    fn refusal(arguments: Value) -> Problem {
        schema().check(&arguments, "app/flow").unwrap_err()
    }

    #[test]
    fn what_fits_is_let_through() {
        for more in [
            json!({}),
            json!({"count": 4_294_967_295_u32}),
            json!({"count": 3.0}),
            json!({"deep": [127, -128]}),
            json!({"big": u64::MAX}),
            json!({"big": null}),
        ] {
            let mut arguments = json!({"peer": "O=Bob, L=New York, C=US"});
            arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(schema().check(&arguments, "app/flow"), Ok(()), "{arguments}");
        }
    }

    #[test]
    fn the_place_and_what_was_expected_are_told() {
        let bob = "O=Bob, L=New York, C=US";
        for (arguments, path, expected) in [
            (json!({"peer": 5}), "/peer", r#"{"type":"string"}"#),
            (json!({"peer": "Bob"}), "/peer", r#"{"format":"x500-name"}"#),
            (json!({"peer": bob, "count": -1}), "/count", r#"{"minimum":0}"#),
            (json!({"peer": bob, "count": 4_294_967_296_u64}), "/count", r#"{"maximum":4294967295}"#),
            (json!({"peer": bob, "deep": [1, 128]}), "/deep/1", r#"{"maximum":127}"#),
            (json!({"peer": bob, "big": 1e30}), "/big", r#"{"maximum":18446744073709551615}"#),
            (json!({}), "/peer", r#"{"format":"x500-name","type":"string"}"#),
            (json!([]), "", r#"{"type":"object"}"#),
        ] {
            let problem = refusal(arguments);
            assert_eq!(
                (problem.details["path"].as_str(), problem.details["expected"].as_str()),
                (path, expected),
                "{problem}"
            );
            assert!(problem.message.contains("app/flow"), "{problem}");
        }
        assert!(refusal(json!({})).message.starts_with("arguments.peer of flow app/flow: it is missing; expected {"));
    }

    #[test]
    fn a_long_value_is_cut_short_and_what_was_expected_is_not() {
        let problem = refusal(json!({"peer": "x".repeat(1_000_000)}));
        assert!(problem.message.len() < 500 && problem.message.contains("x500-name"), "{}", problem.message.len());
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        assert!(ArgumentSchema::new(&json!({"type": "nonsense"})).is_err());
    }
}
