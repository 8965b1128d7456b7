//! A function to a flow: the function stays as it is, and an entry for `cordapp!` stands beside it.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{Attribute, Error, Expr, ExprLit, FnArg, Ident, ItemFn, Lit, Meta, Result, ReturnType, parse_quote};

use crate::attributes::{FlowAttributes, name_of};

/// What starts a flow.
enum Start {
    Client { arguments: bool },
    Peer,
    Flow,
}

/// The hidden constant that describes the flow of this function.
pub fn entry_of(function: &Ident) -> Ident {
    format_ident!("__{}_flow", function)
}

pub fn expand(attributes: &FlowAttributes, mut function: ItemFn) -> Result<TokenStream> {
    check_signature(&function)?;
    let start = start(attributes, &function)?;
    let name = match &attributes.name {
        Some(name) => name.clone(),
        None => name_of(&function.sig.ident)?,
    };
    let initiating = attributes.initiating.unwrap_or(attributes.startable.is_some());
    if initiating {
        let scope = Ident::new("__protocol", Span::mixed_site());
        function
            .block
            .stmts
            .insert(0, parse_quote! { let #scope = ::maxhost_sdk::__private::ProtocolScope::enter(#name); });
    }

    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let entry = entry_of(ident);
    let doc = first_paragraph(&function.attrs);
    let version = attributes.version.unwrap_or(1);
    let responds_to = match &attributes.responds_to {
        Some(protocol) => quote!(::core::option::Option::Some(#protocol)),
        None => quote!(::core::option::Option::None),
    };
    let start = start_expression(&start, ident);
    Ok(quote! {
        #function

        #[doc(hidden)]
        #[allow(dead_code, non_upper_case_globals)]
        #visibility const #entry: ::maxhost_sdk::__private::FlowEntry = ::maxhost_sdk::__private::FlowEntry {
            name: #name,
            doc: #doc,
            responds_to: #responds_to,
            initiating: #initiating,
            version: #version,
            start: #start,
        };
    })
}

fn start_expression(start: &Start, function: &Ident) -> TokenStream {
    match start {
        Start::Client { arguments: true } => quote! {
            ::maxhost_sdk::__private::Start::Startable {
                schemas: || ::maxhost_sdk::__private::schemas(#function),
                run: |arguments| ::maxhost_sdk::__private::call(arguments, #function),
            }
        },
        Start::Client { arguments: false } => quote! {
            ::maxhost_sdk::__private::Start::Startable {
                schemas: || ::maxhost_sdk::__private::schemas_without_arguments(#function),
                run: |_| ::maxhost_sdk::__private::call_without_arguments(#function),
            }
        },
        Start::Peer => quote! {
            ::maxhost_sdk::__private::Start::Responder(|session| {
                ::maxhost_sdk::__private::respond(session, #function)
            })
        },
        Start::Flow => quote!(::maxhost_sdk::__private::Start::SubFlow),
    }
}

fn start(attributes: &FlowAttributes, function: &ItemFn) -> Result<Start> {
    let inputs = &function.sig.inputs;
    match (attributes.startable, &attributes.responds_to) {
        (Some(_), Some(protocol)) => Err(Error::new(
            protocol.span(),
            "a flow is started by a client or by a peer, not by both: write two flows that call one function",
        )),
        (Some(_), None) if inputs.len() <= 1 => Ok(Start::Client { arguments: !inputs.is_empty() }),
        (Some(_), None) => {
            Err(Error::new_spanned(inputs, "a startable flow takes one argument or none: put its fields into a struct"))
        }
        (None, Some(_)) if inputs.len() == 1 => Ok(Start::Peer),
        (None, Some(_)) => {
            Err(Error::new_spanned(&function.sig, "a flow that answers a peer takes one argument, its `Session`"))
        }
        (None, None) if attributes.initiating == Some(true) => Ok(Start::Flow),
        (None, None) => Err(Error::new_spanned(
            &function.sig.ident,
            "say what starts this flow: #[flow(startable)], #[flow(responds_to = \"flow\")], or #[flow(initiating)] for one \
             that other flows call; a function that is only a part of a flow needs no attribute",
        )),
    }
}

fn check_signature(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    if let Some(asyncness) = &signature.asyncness {
        return Err(Error::new_spanned(asyncness, "flows are plain functions: calls of the SDK wait where they stand"));
    }
    if let Some(FnArg::Receiver(receiver)) = signature.inputs.first() {
        return Err(Error::new_spanned(receiver, "flows are free functions, not methods"));
    }
    if !signature.generics.params.is_empty() && signature.generics.type_params().next().is_some() {
        return Err(Error::new_spanned(&signature.generics, "a flow cannot be generic"));
    }
    if matches!(signature.output, ReturnType::Default) {
        return Err(Error::new_spanned(signature, "a flow returns `Result<T>`, for example `Result<()>`"));
    }
    Ok(())
}

/// The first paragraph of the documentation, on one line.
fn first_paragraph(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(doc) if doc.path.is_ident("doc") => match &doc.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    let lines: Vec<String> = lines.collect();
    let text = lines.iter().flat_map(|text| text.split('\n')).map(str::trim);
    let words: Vec<&str> = text.skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn outcome(attributes: &str, function: &str) -> Result<TokenStream> {
        expand(&syn::parse_str(attributes).unwrap(), syn::parse_str(function).unwrap())
    }

    #[test]
    fn a_function_that_cannot_be_a_flow_is_refused() {
        for (attributes, function, wrong) in [
            ("", "fn f() -> Result<()> {}", "say what starts this flow"),
            (r#"startable, responds_to = "x""#, "fn f(s: Session) -> Result<()> {}", "not by both"),
            ("startable", "fn f(a: u8, b: u8) -> Result<()> {}", "one argument or none"),
            (r#"responds_to = "x""#, "fn f() -> Result<()> {}", "its `Session`"),
            ("startable", "async fn f() -> Result<()> {}", "plain functions"),
            ("startable", "fn f(&self) -> Result<()> {}", "not methods"),
            ("startable", "fn f<T>(t: T) -> Result<()> {}", "generic"),
            ("startable", "fn f() {}", "returns `Result<T>`"),
        ] {
            let error = outcome(attributes, function).expect_err(function).to_string();
            assert!(error.contains(wrong), "{function}: {error}");
        }
    }

    #[test]
    fn the_scope_of_a_protocol_is_that_of_an_initiating_flow() {
        let scope =
            |attributes: &str, function: &str| outcome(attributes, function).unwrap().to_string().contains("enter");
        assert!(scope("startable", "fn f() -> Result<()> {}"));
        assert!(!scope("startable, initiating = false", "fn f() -> Result<()> {}"));
        assert!(!scope(r#"responds_to = "x""#, "fn f(s: Session) -> Result<()> {}"));
        assert!(scope(r#"responds_to = "x", initiating"#, "fn f(s: Session) -> Result<()> {}"));
        assert!(scope("initiating", "fn f(a: &str, b: &str) -> Result<String> {}"));
    }

    #[test]
    fn the_first_paragraph_is_the_documentation() {
        let function: ItemFn =
            syn::parse_str("#[doc = \" One\"] #[doc = \" two.\"] #[doc = \"\"] #[doc = \"x\"] fn f() {}").unwrap();
        assert_eq!(first_paragraph(&function.attrs), "One two.");
        assert_eq!(first_paragraph(&[parse_quote!(#[doc = " A\n block.\n\n More."])]), "A block.");
        assert_eq!(first_paragraph(&[]), "");
    }
}
