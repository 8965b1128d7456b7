//! `#[data]`: a struct or enum that fields of states may have.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, Fields, Index, Item, Result};

use super::{data_derives, is_optional};

pub fn expand(mut item: Item) -> Result<TokenStream> {
    let derives = data_derives();
    let (ident, words, pointers) = match &mut item {
        Item::Struct(given) => {
            let (pattern, asking) = pointers(&given.fields);
            (given.ident.clone(), fields(&mut given.fields)?, quote!(let Self { #pattern } = *self; #asking))
        }
        Item::Enum(given) => {
            let mut words = vec![quote!(out.push_str("one of {");)];
            let mut arms = Vec::new();
            for variant in &mut given.variants {
                let (case, (pattern, asking)) = (&variant.ident, pointers(&variant.fields));
                arms.push(quote!(Self::#case { #pattern } => { #asking }));
                let name = variant.ident.to_string();
                let inner = if variant.fields.is_empty() { TokenStream::new() } else { fields(&mut variant.fields)? };
                words.push(quote!(out.push_str(#name); #inner out.push(';');));
            }
            words.push(quote!(out.push('}');));
            (given.ident.clone(), quote!(#(#words)*), quote!(match *self { #(#arms)* }))
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

            #[allow(unused_variables)]
            fn pointers(&self, out: &mut ::maxhost_contract::__private::Vec<::maxhost_contract::Target>) {
                #pointers
            }
        }
    })
}

/// A pattern of the fields, and what asks each for its pointers.
fn pointers(fields: &Fields) -> (TokenStream, TokenStream) {
    let (mut pattern, mut asking) = (TokenStream::new(), TokenStream::new());
    for (index, field) in fields.iter().enumerate() {
        let place = Index::from(index);
        let member = field.ident.as_ref().map_or_else(|| quote!(#place), |ident| quote!(#ident));
        let name = format_ident!("field_{index}");
        pattern.extend(quote!(#member: ref #name,));
        asking.extend(quote!(::maxhost_contract::DataType::pointers(#name, out);));
    }
    (pattern, asking)
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
