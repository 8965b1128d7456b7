//! What stands in `#[flow(...)]`.

use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, LitBool, LitInt, LitStr, Result, Token};

/// The words in `#[flow(...)]`.
#[derive(Default)]
pub struct FlowAttributes {
    pub startable: Option<Span>,
    pub responds_to: Option<LitStr>,
    pub initiating: Option<bool>,
    pub version: Option<u32>,
    pub name: Option<LitStr>,
}

impl Parse for FlowAttributes {
    fn parse(input: ParseStream<'_>) -> Result<FlowAttributes> {
        let mut attributes = FlowAttributes::default();
        while !input.is_empty() {
            let word: Ident = input.parse()?;
            attributes.word(&word, input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(attributes)
    }
}

impl FlowAttributes {
    fn word(&mut self, word: &Ident, input: ParseStream<'_>) -> Result<()> {
        let repeated = match word.to_string().as_str() {
            "startable" => self.startable.replace(word.span()).is_some(),
            "responds_to" => self.responds_to.replace(protocol(value(input)?)?).is_some(),
            "initiating" => self.initiating.replace(flag(input)?).is_some(),
            "version" => self.version.replace(version(&value(input)?)?).is_some(),
            "name" => self.name.replace(flow_name(value(input)?)?).is_some(),
            _ => {
                return Err(Error::new(
                    word.span(),
                    "expected one of: startable, responds_to = \"flow\", initiating, version = 1, name = \"flow\"",
                ));
            }
        };
        if repeated { Err(Error::new(word.span(), "said twice")) } else { Ok(()) }
    }
}

fn value<T: Parse>(input: ParseStream<'_>) -> Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn flag(input: ParseStream<'_>) -> Result<bool> {
    if input.peek(Token![=]) { Ok(value::<LitBool>(input)?.value) } else { Ok(true) }
}

fn version(literal: &LitInt) -> Result<u32> {
    match literal.base10_parse()? {
        0 => Err(Error::new(literal.span(), "versions begin with 1")),
        version => Ok(version),
    }
}

fn flow_name(literal: LitStr) -> Result<LitStr> {
    if is_name(&literal.value()) { Ok(literal) } else { Err(Error::new(literal.span(), NAME_RULE)) }
}

fn protocol(literal: LitStr) -> Result<LitStr> {
    if literal.value().split('/').count() <= 2 && literal.value().split('/').all(is_name) {
        Ok(literal)
    } else {
        Err(Error::new(literal.span(), "expected the name of a flow of this CorDapp, or cordapp/flow"))
    }
}

const NAME_RULE: &str = "a name has 1 to 64 of the characters a-z, 0-9, - and _";

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

/// The flow's name when it is not said: its function's, with hyphens.
pub fn name_of(function: &Ident) -> Result<LitStr> {
    let text = function.to_string();
    let name = text.strip_prefix("r#").unwrap_or(&text).replace('_', "-");
    flow_name(LitStr::new(&name, function.span()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn error(attributes: &str) -> String {
        syn::parse_str::<FlowAttributes>(attributes).err().expect(attributes).to_string()
    }

    #[test]
    fn all_words_are_understood() {
        let attributes: FlowAttributes =
            syn::parse_str(r#"startable, initiating = false, version = 2, name = "other_name","#).unwrap();
        assert!(attributes.startable.is_some());
        assert_eq!((attributes.initiating, attributes.version), (Some(false), Some(2)));
        assert_eq!(attributes.name.unwrap().value(), "other_name");
        let attributes: FlowAttributes = syn::parse_str(r#"responds_to = "app/ping", initiating"#).unwrap();
        assert_eq!(attributes.responds_to.unwrap().value(), "app/ping");
        assert_eq!(attributes.initiating, Some(true));
    }

    #[test]
    fn wrong_words_are_refused() {
        assert!(error("startabel").contains("expected one of: startable"));
        assert_eq!(error("startable, startable"), "said twice");
        assert_eq!(error("version = 0"), "versions begin with 1");
        assert_eq!(error(r#"name = "Ping Pong""#), NAME_RULE);
        for protocol in ["", "a/b/c", "/a", "a/", "Ping"] {
            let wrong = error(&format!("responds_to = {protocol:?}"));
            assert!(wrong.contains("the name of a flow"), "{protocol}: {wrong}");
        }
    }

    #[test]
    fn a_flow_is_called_as_its_function() {
        let name = |function: &str| name_of(&Ident::new_raw(function, Span::call_site())).map(|name| name.value());
        assert_eq!(name("eat_memory").unwrap(), "eat-memory");
        assert!(name("Ping").is_err());
    }
}
