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
