//! The macros of maxhost-contract, which documents them: `#[state]`, `#[data]`, `#[commands]`, `#[faults]`, `#[contract]`
//! and `contracts!`.

pub mod code;
pub mod commands;
pub mod contract;
pub mod data;
pub mod faults;
pub mod state;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Expr, ExprLit, Lit, LitStr, Meta};

/// The lines of documentation up to the first empty one, in one line.
fn first_paragraph(attributes: &[Attribute]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        let Meta::NameValue(doc) = &attribute.meta else { continue };
        let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &doc.value else { continue };
        let line = text.value().trim().to_owned();
        match (line.is_empty(), lines.is_empty()) {
            (true, false) => break,
            (true, true) => {}
            (false, _) => lines.push(line),
        }
    }
    lines.join(" ")
}

/// `OverPaid` as `over-paid`.
fn kebab(name: &str) -> String {
    let mut word = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            word.push('-');
        }
        word.extend(letter.to_lowercase());
    }
    word.replace('_', "-")
}

/// The derives of everything that is data.
fn data_derives() -> TokenStream {
    quote! {
        #[derive(
            Clone, Debug, PartialEq, Eq,
            ::maxhost_contract::__private::serde::Serialize,
            ::maxhost_contract::__private::serde::Deserialize,
        )]
        #[serde(crate = "::maxhost_contract::__private::serde", deny_unknown_fields)]
    }
}

/// Whether a type is `Option<…>`: such a field may be appended to a type that has states already.
fn is_optional(ty: &syn::Type) -> bool {
    matches!(ty, syn::Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Option"))
}

/// Checks the name of a contract, a type or a command.
fn check_name(name: &LitStr) -> syn::Result<()> {
    let text = name.value();
    let fits = text.len() <= 128
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match fits {
        true => Ok(()),
        false => Err(syn::Error::new(name.span(), "a name is a letter, then letters, digits, - _ . (at most 128)")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use syn::parse_str;

    use super::*;

    fn state(attributes: &str, item: &str) -> String {
        let expanded = parse_str::<state::StateAttributes>(attributes)
            .and_then(|attributes| state::expand(&attributes, parse_str(item)?));
        expanded.map_or_else(|error| format!("error: {error}"), |tokens| tokens.to_string())
    }

    #[test]
    fn codes_of_faults_have_hyphens() {
        assert_eq!(kebab("OverPaid"), "over-paid");
        assert_eq!(kebab("A1"), "a1");
        assert_eq!(kebab("NoIOU"), "no-i-o-u");
    }

    #[test]
    fn a_type_of_states_is_a_struct_with_plain_markers() {
        let named = r#"contract = "iou", version = 2"#;
        let written = state(named, "struct Iou { #[owner] who: Party, due: Option<Timestamp> }");
        assert!(written.contains("\"due\"") && written.contains("serde (default)"), "{written}");
        for (attributes, item, words) in [
            ("", "struct A { a: u8 }", "name the contract"),
            ("version = 0", "struct A { a: u8 }", "versions begin with 1"),
            (r#"contract = "9""#, "struct A { a: u8 }", "a name is a letter"),
            (r#"contract = "a", colour = "b""#, "struct A { a: u8 }", "expected one of: contract, name, version"),
            (named, "struct A(u8);", "named fields"),
            (named, "struct A { #[ownr] a: u8 }", "expected one of: linear_id"),
            (named, "struct A { #[owner] a: u8, #[owner] b: u8 }", "another field is the owner already"),
            (named, "struct A { #[quantity] a: u64 }", "#[token]"),
            (named, "struct A { #[issuer] a: Party }", "#[quantity]"),
            (named, "struct A { #[serde(rename = \"b\")] a: u8 }", "part of its schema"),
        ] {
            let said = state(attributes, item);
            assert!(said.starts_with("error: ") && said.contains(words), "{item}: {said}");
        }
    }

    #[test]
    fn rules_name_commands_once_and_faults_are_explained() {
        let rules = |item: &str| {
            let attributes = parse_str(r#"name = "iou", states = [Iou], commands = Command"#).unwrap();
            contract::expand(&attributes, parse_str(item).unwrap()).unwrap_err().to_string()
        };
        assert!(rules("impl A { fn helper() {} }").contains("a contract has a rule"));
        let twice = "impl A { #[on(C::X)] fn a(tx: &Tx) {} #[on(C::X)] fn b(tx: &Tx) {} }";
        assert!(rules(twice).contains("already"));
        assert!(rules("impl A { #[on(C::X)] fn a(&self) {} }").contains("a rule is"));
        let fault = |item: &str| faults::expand(&parse_str(item).unwrap()).unwrap_err().to_string();
        assert!(fault("enum F { A }").contains("doc comment"));
        assert!(fault("enum F { /** a */ A(u8) }").contains("no fields"));
        let command = |item: &str| commands::expand(&parse_str(item).unwrap()).unwrap_err().to_string();
        assert!(command("enum C { Pay(u64) }").contains("name the fields"));
    }
}
