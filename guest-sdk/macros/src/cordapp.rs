//! `cordapp!`: the exports of the component.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, LitStr, Path, Result, Token, bracketed};

use crate::flow::entry_of;

/// What stands in `cordapp! { ... }`.
pub struct Cordapp {
    flows: Vec<Path>,
    name: Option<LitStr>,
    version: Option<LitStr>,
    vendor: Option<LitStr>,
}

impl Parse for Cordapp {
    fn parse(input: ParseStream<'_>) -> Result<Cordapp> {
        let (mut flows, mut name, mut version, mut vendor) = (None, None, None, None);
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            input.parse::<Token![:]>()?;
            match key.to_string().as_str() {
                "flows" => flows = Some(paths(input)?),
                "name" => name = Some(input.parse()?),
                "version" => version = Some(input.parse()?),
                "vendor" => vendor = Some(input.parse()?),
                _ => return Err(Error::new(key.span(), "expected one of: flows, name, version, vendor")),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        match flows {
            Some(flows) => Ok(Cordapp { flows, name, version, vendor }),
            None => Err(input.error("name the CorDapp's flows: flows: [ping, pong]")),
        }
    }
}

fn paths(input: ParseStream<'_>) -> Result<Vec<Path>> {
    let list;
    let bracket = bracketed!(list in input);
    let paths = Punctuated::<Path, Token![,]>::parse_terminated(&list)?;
    if paths.is_empty() {
        return Err(Error::new(bracket.span.join(), "a CorDapp has at least one flow"));
    }
    Ok(paths.into_iter().collect())
}

pub fn expand(cordapp: &Cordapp) -> TokenStream {
    let entries = cordapp.flows.iter().map(entry_path);
    let name = or_package(&cordapp.name, "CARGO_PKG_NAME");
    let version = or_package(&cordapp.version, "CARGO_PKG_VERSION");
    let vendor = or_package(&cordapp.vendor, "CARGO_PKG_AUTHORS");
    quote! {
        const _: () = {
            const FLOWS: &[::maxhost_sdk::__private::FlowEntry] = &[#(#entries),*];
            const _: () = ::maxhost_sdk::__private::check_names(#name, FLOWS);

            struct Component;

            impl ::maxhost_sdk::__private::Guest for Component {
                fn describe() -> ::maxhost_sdk::__private::Descriptor {
                    ::maxhost_sdk::__private::describe(#name, #version, #vendor, FLOWS)
                }

                fn run(
                    invocation: ::maxhost_sdk::__private::Invocation,
                ) -> ::core::result::Result<::std::vec::Vec<u8>, ::maxhost_sdk::__private::Failure> {
                    ::maxhost_sdk::__private::run(FLOWS, &invocation)
                }
            }

            #[cfg(target_arch = "wasm32")]
            ::maxhost_sdk::__private::export_flows!(Component with_types_in ::maxhost_sdk::bindings);
        };
    }
}

fn or_package(given: &Option<LitStr>, variable: &str) -> TokenStream {
    match given {
        Some(literal) => quote!(#literal),
        None => quote!(::core::env!(#variable)),
    }
}

fn entry_path(function: &Path) -> TokenStream {
    let mut path = function.clone();
    if let Some(last) = path.segments.last_mut() {
        last.ident = entry_of(&last.ident);
    }
    quote!(#path)
}
