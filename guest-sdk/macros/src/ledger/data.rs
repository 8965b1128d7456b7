//! `#[data]`: a struct or enum that fields of states may have.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, Fields, Item, Result};

use super::{data_derives, is_optional};

pub fn expand(mut item: Item) -> Result<TokenStream> {
    let derives = data_derives();
    let (ident, words) = match &mut item {
        Item::Struct(given) => (given.ident.clone(), fields(&mut given.fields)?),
        Item::Enum(given) => {
            let mut words = vec![quote!(out.push_str("one of {");)];
            for variant in &mut given.variants {
                let name = variant.ident.to_string();
                let inner = if variant.fields.is_empty() { TokenStream::new() } else { fields(&mut variant.fields)? };
                words.push(quote!(out.push_str(#name); #inner out.push(';');));
            }
            words.push(quote!(out.push('}');));
            (given.ident.clone(), quote!(#(#words)*))
        }
        other => return Err(Error::new_spanned(other, "data is a struct or an enum")),
    };
    Ok(quote! {
        #derives
        #item

        impl ::maxhost_contract::DataType for #ident {
            fn type_words(out: &mut ::maxhost_contract::__private::String) {
                #words
            }
        }
    })
}

/// Appends the fields in words.
fn fields(fields: &mut Fields) -> Result<TokenStream> {
    let mut words = vec![quote!(out.push('{');)];
    for (index, field) in fields.iter_mut().enumerate() {
        let ty = &field.ty;
        let name = field.ident.as_ref().map_or_else(|| index.to_string(), ToString::to_string);
        words.push(quote! {
            out.push_str(#name);
            out.push_str(": ");
            <#ty as ::maxhost_contract::DataType>::type_words(out);
            out.push(';');
        });
        if is_optional(ty) && field.ident.is_some() {
            field.attrs.push(syn::parse_quote!(#[serde(default)]));
        }
    }
    words.push(quote!(out.push('}');));
    Ok(quote!(#(#words)*))
}
