//! `#[commands]`: an enum to the commands of a contract.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Fields, ItemEnum, Result};

use super::data_derives;

pub fn expand(item: &ItemEnum) -> Result<TokenStream> {
    let ident = &item.ident;
    let derives = data_derives();
    let (mut names, mut name_arms, mut encode_arms, mut decode_arms) = (vec![], vec![], vec![], vec![]);
    for variant in &item.variants {
        let variant_ident = &variant.ident;
        let name = variant_ident.to_string();
        name_arms.push(quote!(#ident::#variant_ident { .. } => #name));
        match &variant.fields {
            Fields::Unit => {
                encode_arms.push(quote!(#ident::#variant_ident => ::maxhost_contract::encode(&())));
                decode_arms.push(quote!(#name => {
                    ::maxhost_contract::decode::<()>(data).map_err(malformed)?;
                    ::core::result::Result::Ok(#ident::#variant_ident)
                }));
            }
            Fields::Named(fields) => {
                let fields_idents: Vec<_> = fields.named.iter().filter_map(|field| field.ident.as_ref()).collect();
                let types: Vec<_> = fields.named.iter().map(|field| &field.ty).collect();
                encode_arms.push(quote!(#ident::#variant_ident { #(#fields_idents),* } => {
                    #[derive(::maxhost_contract::__private::serde::Serialize)]
                    #[serde(crate = "::maxhost_contract::__private::serde")]
                    struct Fields<'a> { #(#fields_idents: &'a #types),* }
                    ::maxhost_contract::encode(&Fields { #(#fields_idents),* })
                }));
                decode_arms.push(quote!(#name => {
                    #[derive(::maxhost_contract::__private::serde::Deserialize)]
                    #[serde(crate = "::maxhost_contract::__private::serde", deny_unknown_fields)]
                    struct Fields { #(#fields_idents: #types),* }
                    let Fields { #(#fields_idents),* } = ::maxhost_contract::decode(data).map_err(malformed)?;
                    ::core::result::Result::Ok(#ident::#variant_ident { #(#fields_idents),* })
                }));
            }
            Fields::Unnamed(_) => {
                return Err(Error::new_spanned(variant, "name the fields of a command: Pay { by: u64 }"));
            }
        }
        names.push(name);
    }
    Ok(quote! {
        #derives
        #item

        impl ::maxhost_contract::CommandSet for #ident {
            const NAMES: &'static [&'static str] = &[#(#names),*];

            fn name(&self) -> &'static str {
                match self { #(#name_arms),* }
            }

            fn encode(
                &self,
            ) -> ::core::result::Result<::maxhost_contract::__private::Vec<u8>, ::maxhost_contract::CborError> {
                match self { #(#encode_arms),* }
            }

            fn decode(name: &str, data: &[u8]) -> ::core::result::Result<#ident, ::maxhost_contract::Rejection> {
                let malformed = |error: ::maxhost_contract::CborError| {
                    ::maxhost_contract::__private::malformed_command(name, &error)
                };
                match name {
                    #(#decode_arms)*
                    _ => ::core::result::Result::Err(::maxhost_contract::__private::no_such_command(name)),
                }
            }
        }
    })
}
