//! `#[faults]`: an enum to the faults of a contract.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemEnum, Result};

use super::{first_paragraph, kebab};

pub fn expand(item: &ItemEnum) -> Result<TokenStream> {
    let ident = &item.ident;
    let mut words = Vec::new();
    let mut arms = Vec::new();
    for variant in &item.variants {
        if !variant.fields.is_empty() {
            return Err(Error::new_spanned(
                variant,
                "a fault has no fields: what is wrong is told by its documentation",
            ));
        }
        let about = first_paragraph(&variant.attrs);
        if about.is_empty() {
            return Err(Error::new_spanned(
                variant,
                "say in a doc comment what is wrong: people read it when it happens",
            ));
        }
        let (name, code) = (&variant.ident, kebab(&variant.ident.to_string()));
        words.push(quote!(::maxhost_contract::FaultWord { code: #code, about: #about }));
        arms.push(quote!(#ident::#name => ::maxhost_contract::Rejection::new(#code, #about)));
    }
    Ok(quote! {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #item

        impl ::maxhost_contract::Faults for #ident {
            const ALL: &'static [::maxhost_contract::FaultWord] = &[#(#words),*];
        }

        impl ::core::convert::From<#ident> for ::maxhost_contract::Rejection {
            fn from(fault: #ident) -> ::maxhost_contract::Rejection {
                match fault { #(#arms),* }
            }
        }
    })
}
