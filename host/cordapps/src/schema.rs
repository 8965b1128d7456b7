//! The JSON Schema of a flow's arguments: what fits it, and how it is told what does not.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use maxhost_model::{Code, Problem, X500Name, is_exact_integer};
use serde_json::{Map, Number, Value};

use crate::numbers::{self, EXACT_INTEGER};

/// How much of a value is shown, in characters: a message has to fit into the headers of an answer.
const SHOWN: usize = 120;

/// So many errors are looked at for the one that is told.
const LOOKED_AT: usize = 64;
/// From this likeness on (Jaro and Winkler's) a name is taken for a misspelt other one.
const ALIKE: f64 = 0.75;

/// A schema that arguments are checked against.
pub(crate) struct ArgumentSchema {
    schema: Value,
    validator: Validator,
    /// As `validator`, and it takes floats for integers only if they are exact. Made for the first arguments that need it.
    exact: OnceLock<Result<Validator, String>>,
}

impl ArgumentSchema {
    /// Compiles a schema. The names of parties and the sizes of numbers in it become rules, so that what cannot be read
    /// later is refused now.
    ///
    /// # Errors
    /// In words: it is no JSON Schema.
    pub fn new(schema: &Value) -> Result<ArgumentSchema, String> {
        let mut schema = schema.clone();
        numbers::make_rules(&mut schema);
        let validator = options().build(&schema).map_err(|error| error.to_string())?;
        Ok(ArgumentSchema { schema, validator, exact: OnceLock::new() })
    }

    /// Checks arguments that came as JSON, in which a number with a point or an exponent may have been rounded to the float that it
    /// is now.
    ///
    /// # Errors
    /// Those of [`ArgumentSchema::check`], also where an integer is expected and nobody can tell which one a float was.
    pub fn check_json(&self, arguments: &Value, flow: &str) -> Result<(), Problem> {
        self.check(arguments, flow)?;
        if has_doubtful_integers(arguments) { self.check_integers(arguments, flow, None) } else { Ok(()) }
    }

    /// Checks arguments that came as CBOR, in which a float is what it is, but is read as an integer below 2^63 only. They are
    /// given as [`maxhost_model::cbor_for_schema`] has them, and, if that is needed, as
    /// [`maxhost_model::cbor_for_exact_integers`] does.
    ///
    /// # Errors
    /// Those of [`ArgumentSchema::check_json`], and of `exact`.
    pub fn check_cbor(
        &self,
        arguments: &Value,
        exact: impl FnOnce() -> Result<Value, Problem>,
        flow: &str,
    ) -> Result<(), Problem> {
        self.check(arguments, flow)?;
        match has_doubtful_integers(arguments) {
            // An integer beyond 64 bits is not what it was there: what else is wrong with it says nothing.
            true => self.check_integers(&exact()?, flow, Some(EXACT_INTEGER)),
            false => Ok(()),
        }
    }

    /// Whether no float stands where an integer is expected which it is not exactly. `only`: the keyword that alone is looked for.
    fn check_integers(&self, arguments: &Value, flow: &str, only: Option<&str>) -> Result<(), Problem> {
        let exact = || numbers::exact(options()).build(&self.schema).map_err(|error| error.to_string());
        match self.exact.get_or_init(exact) {
            Ok(exact) => self.judge(exact, arguments, flow, only),
            Err(reason) => Err(Problem::new(Code::Internal, format!("the schema of flow {flow}: {reason}"))),
        }
    }

    /// Checks arguments.
    ///
    /// # Errors
    /// `arguments-invalid`, with the first place that does not fit and what was expected there.
    pub fn check(&self, arguments: &Value, flow: &str) -> Result<(), Problem> {
        self.judge(&self.validator, arguments, flow, None)
    }

    /// `only`: the keyword that alone is looked for.
    fn judge(&self, validator: &Validator, arguments: &Value, flow: &str, only: Option<&str>) -> Result<(), Problem> {
        if validator.is_valid(arguments) {
            return Ok(());
        }
        let errors: Vec<ValidationError<'_>> = validator.iter_errors(arguments).take(LOOKED_AT).collect();
        let Some(error) = most_telling(&errors) else { return Ok(()) };
        let rule = error.schema_path().as_str();
        if only.is_some_and(|keyword| !rule.ends_with(keyword)) {
            return Ok(());
        }
        let found = error.masked_with(shortened(&error.instance().to_string()));
        let mut path = error.instance_path().to_string();
        let (what, expected) = match error.kind() {
            ValidationErrorKind::Required { property } => {
                let property = property.as_str().unwrap_or_default();
                path = format!("{path}/{}", property.replace('~', "~0").replace('/', "~1"));
                let expected = self.property(rule, property);
                (format!("it is missing; expected {expected}"), expected)
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let field = unexpected.first().map(String::as_str).unwrap_or_default();
                path = format!("{path}/{}", field.replace('~', "~0").replace('/', "~1"));
                self.unknown_field(rule, field)
            }
            ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
                let expected = self.rule(rule);
                (format!("{found}; expected {expected}"), expected)
            }
            ValidationErrorKind::Custom { message, .. } => {
                let object = rule.rsplit_once('/').map_or("", |(object, _)| object);
                let expected = if rule.ends_with(EXACT_INTEGER) { "type" } else { "format" };
                let found = shortened(&error.instance().to_string());
                (format!("{found} {message}"), self.rule(&format!("{object}/{expected}")))
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
            Some(value) => shortened(&serde_json::json!({ keyword: numbers::shown(value) }).to_string()),
            None => rule.to_owned(),
        }
    }

    /// Says that there is no such field, and which there is instead; then all there are.
    fn unknown_field(&self, rule: &str, field: &str) -> (String, String) {
        let object = rule.rsplit_once('/').map_or("", |(object, _)| object);
        let mut known = BTreeSet::new();
        if let Some(object) = self.schema.pointer(object) {
            self.fields(object, &mut known, &mut Vec::new());
        }
        let alike = |name: &&String| strsim::jaro_winkler(field, name);
        let nearest = known.iter().max_by(|one, two| alike(one).total_cmp(&alike(two)));
        let expected = shortened(&known.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
        let what = match nearest {
            Some(name) if alike(&name) > ALIKE => format!("there is no such field; did you mean '{name}'?"),
            Some(_) => format!("there is no such field; there are {expected}"),
            None => "there is no such field".to_owned(),
        };
        (what, expected)
    }

    /// The fields that a schema names, itself and through others that describe the same object.
    fn fields(&self, schema: &Value, known: &mut BTreeSet<String>, seen: &mut Vec<String>) {
        known.extend(schema["properties"].as_object().into_iter().flat_map(Map::keys).cloned());
        let parts = ["allOf", "anyOf", "oneOf"].iter().filter_map(|keyword| schema[*keyword].as_array()).flatten();
        parts.for_each(|part| self.fields(part, known, seen));
        let Some(target) = schema["$ref"].as_str().and_then(|target| target.strip_prefix('#')) else { return };
        if !seen.iter().any(|other| other == target)
            && let Some(schema) = self.schema.pointer(target)
        {
            seen.push(target.to_owned());
            self.fields(schema, known, seen);
        }
    }

    /// What a property should be that a rule requires.
    fn property(&self, rule: &str, name: &str) -> String {
        let object = rule.strip_suffix("/required").and_then(|object| self.schema.pointer(object));
        match object.and_then(|object| object["properties"].get(name)) {
            Some(property) => shortened(&numbers::shown(property).to_string()),
            None => self.rule(rule),
        }
    }
}

/// The error that says most: a field that is not there before all others, for what else is wrong comes of it; and of the
/// alternatives of a choice the one that was meant, if that can be told.
fn most_telling<'e>(errors: &'e [ValidationError<'_>]) -> Option<&'e ValidationError<'e>> {
    let unknown = |error: &&ValidationError<'_>| {
        matches!(
            error.kind(),
            ValidationErrorKind::AdditionalProperties { .. } | ValidationErrorKind::UnevaluatedProperties { .. }
        )
    };
    let error = errors.iter().find(unknown).or(errors.first())?;
    let (ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context }) = error.kind() else {
        return Some(error);
    };
    let here = error.instance_path();
    let other_kind = |error: &ValidationError<'_>| match error.kind() {
        ValidationErrorKind::Constant { .. } | ValidationErrorKind::Enum { .. } => true,
        ValidationErrorKind::Type { .. } => error.instance_path() == here,
        _ => false,
    };
    let incomplete = |error: &ValidationError<'_>| {
        matches!(error.kind(), ValidationErrorKind::Required { .. }) && error.instance_path() == here
    };
    let meant = |not_meant: &dyn Fn(&ValidationError<'_>) -> bool| {
        let mut branches = context.iter().filter(|branch| !branch.iter().any(not_meant));
        branches.next().filter(|_| branches.next().is_none())
    };
    let branch = meant(&|error| other_kind(error) || incomplete(error)).or_else(|| meant(&other_kind));
    branch.and_then(|branch| most_telling(branch)).or(Some(error))
}

/// How schemas are read, whatever is checked.
fn options() -> jsonschema::ValidationOptions<'static> {
    numbers::held_by_floats(jsonschema::options())
        .with_format("x500-name", |text: &str| X500Name::parse(text).is_ok())
        .should_validate_formats(true)
}

/// Whether there is a float that is whole, and that need not be the whole number that was written.
fn has_doubtful_integers(json: &Value) -> bool {
    let is_doubtful = |float: f64| float.fract() == 0.0 && !is_exact_integer(float);
    match json {
        Value::Number(number) => number.is_f64() && Number::as_f64(number).is_some_and(is_doubtful),
        Value::Array(items) => items.iter().any(has_doubtful_integers),
        Value::Object(fields) => fields.values().any(has_doubtful_integers),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
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
    fn a_float_is_an_integer_only_if_it_is_exactly_that_one() {
        let schema = json!({
            "type": "object",
            "properties": {
                "any": {"type": "integer"},
                "maybe": {"anyOf": [{"type": ["integer", "null"]}, {"type": "string"}]},
                "big": {"type": "integer", "format": "uint64", "minimum": 0},
                "signed": {"type": "integer", "format": "int64"},
                "wide": {"type": "integer", "format": "int128"},
                "list": {"type": "array", "items": {"$ref": "#/$defs/whole"}},
                "rate": {"type": "number", "format": "double"},
                "some": {"type": "number"},
                "either": {"anyOf": [{"type": "integer"}, {"type": "number"}]},
                // A field may be called like a keyword.
                "default": {"type": "integer", "format": "int8"},
            },
            "$defs": {"whole": {"type": "integer"}},
        });
        let schema = ArgumentSchema::new(&schema).unwrap();
        for arguments in [
            json!({"any": 1.0, "maybe": -0.0, "big": 3.0, "signed": -5.0, "wide": 1e18, "list": [1.0, 9e15]}),
            json!({"any": u64::MAX, "big": u64::MAX, "signed": i64::MIN, "wide": i64::MIN}),
            json!({"rate": 1e30, "some": 1e30, "either": 1e30}),
            json!({"maybe": null}),
            json!({"maybe": "1e30"}),
        ] {
            assert_eq!(schema.check_json(&arguments, "app/flow"), Ok(()), "{arguments}");
        }
        for (arguments, path) in [
            (json!({"any": 1e30}), "/any"),
            (json!({"any": -1e30}), "/any"),
            (json!({"any": 1e308}), "/any"),
            (json!({"any": 1e19}), "/any"),
            (json!({"any": 72_057_594_037_927_952.0}), "/any"),
            (json!({"maybe": 1e30}), "/maybe"),
            (json!({"big": 1e19}), "/big"),
            (json!({"signed": -9_223_372_036_854_775_808.0}), "/signed"),
            (json!({"wide": 1e30}), "/wide"),
            (json!({"list": [1, 1.0, 1e30]}), "/list/2"),
            (json!({"rate": 1e30, "list": [1e23]}), "/list/0"),
        ] {
            let problem = schema.check_json(&arguments, "app/flow").unwrap_err();
            assert_eq!((problem.code, problem.details["path"].as_str()), (Code::ArgumentsInvalid, path), "{problem}");
            // That is beside what a schema says.
            assert_eq!(schema.check(&arguments, "app/flow"), Ok(()), "{arguments}");
        }
        // In CBOR a float is what it is, and whoever reads integers takes those below 2^63.
        let of_cbor = |arguments: Value, exact: Value| schema.check_cbor(&arguments, || Ok(exact), "app/flow");
        let whole = 72_057_594_037_927_952_i64;
        assert_eq!(of_cbor(json!({"any": whole as f64}), json!({"any": whole})), Ok(()));
        assert_eq!(of_cbor(json!({"wide": 2e30}), json!({"wide": u64::MAX})), Ok(()), "an integer beyond 64 bits");
        assert_eq!(of_cbor(json!({"rate": 2e30}), json!({"rate": u64::MAX})), Ok(()), "all else was found right");
        let refused = of_cbor(json!({"any": 1, "list": [1e30]}), json!({"any": 1, "list": [1e30]})).unwrap_err();
        assert_eq!(refused.details["path"], "/list/0");
        let problem = schema.check_json(&json!({"any": 1e30}), "app/flow").unwrap_err();
        assert_eq!(problem.details["expected"], r#"{"type":"integer"}"#);
        assert!(problem.message.starts_with("arguments.any of flow app/flow: 1e"), "{problem}");
        assert!(problem.message.contains("point or an exponent, and is no integer exactly"), "{problem}");
        assert_eq!(schema.check(&json!({"default": 128}), "app/flow").unwrap_err().details["path"], "/default");
        // What is expected is told in the words of the schema's author.
        let schema = json!({"required": ["n"], "properties": {"n": {"type": "integer"}, "m": {"anyOf": [
            {"type": "integer"}, {"type": "number", "format": "double", "minimum": 5},
        ]}}});
        let schema = ArgumentSchema::new(&schema).unwrap();
        let missing = schema.check(&json!({}), "app/flow").unwrap_err();
        assert_eq!(missing.details["expected"], r#"{"type":"integer"}"#);
        for m in [json!("x"), json!([])] {
            let neither = schema.check_json(&json!({"n": 1, "m": m}), "app/flow").unwrap_err();
            assert!(!format!("{neither} {:?}", neither.details).contains("x-maxhost"), "{neither:?}");
        }
    }

    #[test]
    fn an_integer_is_a_float_only_if_a_float_holds_it() {
        let schema = json!({"type": "object", "properties": {
            "rate": {"type": "number", "format": "double"},
            "maybe": {"type": ["number", "null"], "format": "float"},
        }});
        let schema = ArgumentSchema::new(&schema).unwrap();
        for arguments in [
            json!({"rate": 9_007_199_254_740_992_u64, "maybe": 1}),
            json!({"rate": i64::MIN, "maybe": 3.4e38}),
            json!({"rate": 18_446_744_073_709_549_568_u64, "maybe": -0.1}),
            json!({"rate": 1e300, "maybe": null}),
        ] {
            assert_eq!(schema.check_json(&arguments, "app/flow"), Ok(()), "{arguments}");
        }
        for (arguments, path, words) in [
            (
                json!({"rate": 9_007_199_254_740_993_u64}),
                "/rate",
                "9007199254740993 has more digits than a float holds",
            ),
            (json!({"rate": i64::MAX}), "/rate", "more digits"),
            (json!({"rate": u64::MAX}), "/rate", "more digits"),
            (json!({"maybe": -9_007_199_254_740_993_i64}), "/maybe", "more digits"),
            (json!({"maybe": 1e39}), "/maybe", "is beyond the range of a float of 32 bits"),
            (json!({"maybe": -1e300}), "/maybe", "is beyond the range"),
        ] {
            let problem = schema.check(&arguments, "app/flow").unwrap_err();
            assert_eq!((problem.code, problem.details["path"].as_str()), (Code::ArgumentsInvalid, path), "{problem}");
            assert!(problem.message.contains(words), "{problem}");
        }
        let problem = schema.check(&json!({"rate": u64::MAX}), "app/flow").unwrap_err();
        assert_eq!(problem.details["expected"], r#"{"format":"double"}"#);
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

    /// Fields that are not there, in all shapes that an author's types have.
    #[test]
    fn a_field_that_is_not_there_is_named_with_the_nearest_that_is() {
        let inner =
            || json!({"type": "object", "properties": {"rate": {"type": "integer"}}, "additionalProperties": false});
        let schema = json!({
            "type": "object",
            "properties": {
                "count": {"type": "integer"},
                "maybe": {"anyOf": [{"$ref": "#/$defs/inner"}, {"type": "null"}]},
                "list": {"type": "array", "items": {"$ref": "#/$defs/inner"}},
                "either": {"oneOf": [
                    {"type": "object", "properties": {"New": inner()}, "required": ["New"], "additionalProperties": false},
                    {"type": "object", "properties": {"Old": inner()}, "required": ["Old"], "additionalProperties": false},
                ]},
                "tagged": {"oneOf": [
                    {"type": "object", "properties": {"kind": {"const": "a"}}, "$ref": "#/$defs/shared",
                        "required": ["kind"], "unevaluatedProperties": false},
                    {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"],
                        "additionalProperties": false},
                ]},
            },
            "required": ["count"],
            "additionalProperties": false,
            "$defs": {"inner": inner(), "shared": {"properties": {"weight": true}}},
        });
        let schema = ArgumentSchema::new(&schema).unwrap();
        for (arguments, path, words) in [
            (json!({"cuont": 1}), "/cuont", "did you mean 'count'?"),
            (json!({"count": 1, "x~/": 1}), "/x~0~1", "there are count, either, list, maybe, tagged"),
            (json!({"count": 1, "maybe": {"rat": 1}}), "/maybe/rat", "did you mean 'rate'?"),
            (json!({"count": 1, "list": [{"rate": 1}, {"rates": 1}]}), "/list/1/rates", "did you mean 'rate'?"),
            (json!({"count": 1, "either": {"Old": {"rate": 1, "zz": 1}}}), "/either/Old/zz", "there are rate"),
            (json!({"count": 1, "tagged": {"kind": "a", "wieght": 1}}), "/tagged/wieght", "did you mean 'weight'?"),
            (json!({"count": 1, "tagged": {"kind": "b", "weight": 1}}), "/tagged/weight", "there are kind"),
        ] {
            let problem = schema.check(&arguments, "app/flow").unwrap_err();
            assert_eq!(problem.details["path"], path, "{problem}");
            assert!(problem.message.contains("there is no such field") && problem.message.contains(words), "{problem}");
        }
        for arguments in [
            json!({"count": 1, "maybe": null, "list": [{}], "either": {"New": {"rate": 1}}}),
            json!({"count": 1, "tagged": {"kind": "a", "weight": 1}}),
        ] {
            assert_eq!(schema.check(&arguments, "app/flow"), Ok(()), "{arguments}");
        }
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
