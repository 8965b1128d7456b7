//! CBOR as JSON text, by the table of [`crate::json`]. No tree of values lies in between: it would take some thirty bytes for each
//! byte of a list of small numbers.

use std::fmt;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::invalid::{Invalid, excerpt};
use crate::json_path::JsonPath;

/// JSON that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonText {
    /// The JSON, without spaces, the keys of each object in their order.
    pub text: String,
    /// How deep arrays and objects are nested: 0 for a number, 1 for a list of numbers.
    pub levels: u16,
}

/// The text of what [`crate::cbor_to_json`] decodes.
///
/// # Errors
/// Those of [`crate::cbor_to_json`].
pub fn cbor_to_json_text(bytes: &[u8]) -> Result<JsonText, Invalid> {
    let refuse = |reason: String| Invalid::Cbor { what: "a JSON value".to_owned(), reason };
    let mut writer = Writer::default();
    let whole = Place { path: JsonPath::Root, writer: &mut writer };
    maxhost_cbor::readable::from_slice_seed(whole, bytes).map_err(|error| refuse(error.to_string()))?;
    let text = String::from_utf8(writer.out).map_err(|error| refuse(error.to_string()))?;
    Ok(JsonText { text, levels: writer.deepest })
}

/// What was written so far.
#[derive(Default)]
struct Writer {
    out: Vec<u8>,
    level: u16,
    deepest: u16,
}

impl Writer {
    fn enter(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.level = self.level.saturating_add(1);
        self.deepest = self.deepest.max(self.level);
    }

    fn leave(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.level = self.level.saturating_sub(1);
    }

    fn plain<E: de::Error>(&mut self, value: impl fmt::Display) -> Result<(), E> {
        use std::io::Write;
        write!(self.out, "{value}").map_err(de::Error::custom)
    }

    fn text<E: de::Error>(&mut self, text: &str) -> Result<(), E> {
        serde_json::to_writer(&mut self.out, text).map_err(de::Error::custom)
    }

    /// What was written, as the key of an object: a text as it is, and the JSON of all else.
    fn take_key<E: de::Error>(&mut self) -> Result<String, E> {
        let key = match self.out.first() {
            Some(b'"') => serde_json::from_slice(&self.out).map_err(E::custom)?,
            _ => String::from_utf8_lossy(&self.out).into_owned(),
        };
        self.out.clear();
        Ok(key)
    }
}

/// The entries of one object, as they came.
#[derive(Default)]
struct Entries {
    /// The keys, one behind the other.
    keys: String,
    /// Where each key is among the keys, and where it was written with its value: from the first of them on.
    places: Vec<(Range<usize>, Range<usize>)>,
}

impl Entries {
    fn key(&self, place: &(Range<usize>, Range<usize>)) -> &str {
        self.keys.get(place.0.clone()).unwrap_or_default()
    }

    fn are_in_order(&self) -> bool {
        self.places.is_sorted_by(|one, next| self.key(one) < self.key(next))
    }

    /// Puts them into the order of their keys.
    fn sort(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        places.sort_by(|one, next| self.key(one).cmp(self.key(next)));
        self.places = places;
    }

    /// A key that is there twice, once they are in order.
    fn twice(&self) -> Option<&str> {
        let mut neighbours = self.places.iter().zip(self.places.iter().skip(1));
        neighbours.find(|(one, next)| self.key(one) == self.key(next)).map(|(one, _)| self.key(one))
    }
}

/// A place that is written: any value is welcome there.
struct Place<'a, 'w> {
    path: JsonPath<'a>,
    writer: &'w mut Writer,
}

impl<'de> DeserializeSeed<'de> for Place<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.writer.plain("null")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.writer.plain(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.writer.plain(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.writer.plain(value)
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<(), E> {
        match u64::try_from(value) {
            Ok(value) => self.writer.plain(value),
            Err(_) => self.writer.text(&value.to_string()),
        }
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<(), E> {
        let is_narrow = i64::try_from(value).is_ok() || u64::try_from(value).is_ok();
        if is_narrow { self.writer.plain(value) } else { self.writer.text(&value.to_string()) }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        match Number::from_f64(value) {
            Some(number) => self.writer.plain(number),
            None if value.is_nan() => self.writer.text("NaN"),
            None if value > 0.0 => self.writer.text("Infinity"),
            None => self.writer.text("-Infinity"),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.writer.text(text)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<(), E> {
        self.writer.text(&STANDARD.encode(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Place { path, writer } = self;
        writer.enter(b'[');
        let mut count = 0;
        loop {
            let end = writer.out.len();
            if count > 0 {
                writer.out.push(b',');
            }
            let place = Place { path: JsonPath::Element(&path, count), writer: &mut *writer };
            if items.next_element_seed(place)?.is_none() {
                writer.out.truncate(end);
                break;
            }
            count += 1;
        }
        writer.leave(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Place { path, writer } = self;
        writer.enter(b'{');
        let begin = writer.out.len();
        let (mut entries, mut key_writer) = (Entries::default(), Writer::default());
        while map.next_key_seed(Place { path, writer: &mut key_writer })?.is_some() {
            let key = key_writer.take_key::<A::Error>()?;
            if writer.out.len() > begin {
                writer.out.push(b',');
            }
            let from = writer.out.len() - begin;
            writer.text::<A::Error>(&key)?;
            writer.out.push(b':');
            map.next_value_seed(Place { path: JsonPath::Field(&path, &key), writer: &mut *writer })?;
            let key_from = entries.keys.len();
            entries.keys.push_str(&key);
            entries.places.push((key_from..entries.keys.len(), from..writer.out.len() - begin));
        }
        if !entries.are_in_order() {
            entries.sort();
            if let Some(key) = entries.twice() {
                let key = excerpt(key);
                return Err(de::Error::custom(format_args!("the map at '{path}' has the key '{key}' twice")));
            }
            let written = writer.out.split_off(begin);
            for (_, place) in &entries.places {
                if writer.out.len() > begin {
                    writer.out.push(b',');
                }
                writer.out.extend_from_slice(written.get(place.clone()).unwrap_or_default());
            }
        }
        writer.leave(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{cbor_to_json, json_to_cbor, to_cbor};

    fn written(bytes: &[u8]) -> String {
        cbor_to_json_text(bytes).unwrap().text
    }

    #[test]
    fn keys_are_in_order_and_none_is_there_twice() {
        // {"b": {2: 0, 10: 1}, "a": [], "": null}
        let bytes = hex::decode("a36162a202000a0161618060f6").unwrap();
        assert_eq!(written(&bytes), r#"{"":null,"a":[],"b":{"10":1,"2":0}}"#);
        // {"a": [{1: 0, "1": 0}]}, and the same key apart from its like.
        for twice in ["a1616181a20100613100", "a1616181a301006132000100"] {
            let bytes = hex::decode(twice).unwrap();
            let refused = cbor_to_json_text(&bytes).unwrap_err().to_string();
            assert!(refused.contains("the map at '/a/0' has the key '1' twice"), "{refused}");
        }
    }

    #[test]
    fn levels_are_counted() {
        let levels = |json: serde_json::Value| cbor_to_json_text(&json_to_cbor(&json).unwrap()).unwrap().levels;
        assert_eq!(levels(json!(1)), 0);
        assert_eq!(levels(json!([])), 1);
        assert_eq!(levels(json!([[1], [[2]], {"a": [3]}, 4])), 3);
        let deepest = [vec![0x81; 127], vec![0x80]].concat();
        assert_eq!(cbor_to_json_text(&deepest).unwrap().levels, 128);
        assert!(cbor_to_json_text(&[vec![0x81; 128], vec![0x80]].concat()).is_err());
    }

    #[test]
    fn the_text_is_that_of_the_tree() {
        let mut all = vec![
            to_cbor(&u128::MAX).unwrap(),
            to_cbor(&i128::MIN).unwrap(),
            to_cbor(&u64::MAX).unwrap(),
            to_cbor(&(i128::from(i64::MIN) - 1)).unwrap(),
            to_cbor(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300, 5e-324, 0.1]).unwrap(),
            to_cbor("a\0\"\\\u{2028}\u{1f980}").unwrap(),
            to_cbor(&BTreeMap::from([(u128::MAX, 1)])).unwrap(),
            // {[1, "x"]: 0, h'ff': 1, true: 2, null: 3}
            hex::decode("a4820161780041ff01f502f603").unwrap(),
        ];
        all.push([0x81].iter().copied().chain(hex::decode("c06161").unwrap()).collect());
        for bytes in all {
            assert_eq!(written(&bytes), cbor_to_json(&bytes).unwrap().to_string());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_answer_that_the_tree_gives(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            match cbor_to_json(&bytes) {
                Ok(json) => prop_assert_eq!(written(&bytes), json.to_string()),
                Err(_) => prop_assert!(cbor_to_json_text(&bytes).is_err()),
            }
        }

        #[test]
        fn maps_are_written_in_order(map in proptest::collection::hash_map(".{0,4}", any::<i32>(), 0..20)) {
            let bytes = to_cbor(&map).unwrap();
            prop_assert_eq!(written(&bytes), cbor_to_json(&bytes).unwrap().to_string());
        }
    }
}
