//! `#[state]`: a struct to a type of states.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Error, Field, Fields, Ident, ItemStruct, LitInt, LitStr, Result, Token};

use super::{check_name, data_derives, is_optional};

/// What stands in `#[state(...)]`.
pub struct StateAttributes {
    contract: LitStr,
    name: Option<LitStr>,
    version: u32,
}

impl Parse for StateAttributes {
    fn parse(input: ParseStream<'_>) -> Result<StateAttributes> {
        let (mut contract, mut name, mut version) = (None, None, 1);
        while !input.is_empty() {
            let word: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            match word.to_string().as_str() {
                "contract" => contract = Some(input.parse::<LitStr>()?),
                "name" => name = Some(input.parse::<LitStr>()?),
                "version" => {
                    let literal: LitInt = input.parse()?;
                    version = literal.base10_parse()?;
                    if version == 0 {
                        return Err(Error::new(literal.span(), "versions begin with 1"));
                    }
                }
                _ => return Err(Error::new(word.span(), "expected one of: contract, name, version")),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let contract = contract.ok_or_else(|| input.error("name the contract: #[state(contract = \"iou\")]"))?;
        check_name(&contract)?;
        name.iter().try_for_each(check_name)?;
        Ok(StateAttributes { contract, name, version })
    }
}

/// What a field is to the vault.
#[derive(Default)]
struct Roles {
    linear_id: Option<Ident>,
    external_id: Option<Ident>,
    owner: Option<Ident>,
    quantity: Option<Ident>,
    token: Option<Ident>,
    issuer: Option<Ident>,
    participants: Vec<Ident>,
    queries: Vec<(Ident, syn::Type)>,
    next_activity: Option<Ident>,
}

const ROLES: &str = "linear_id, external_id, participant, owner, quantity, token, issuer, query, next_activity";

impl Roles {
    /// Takes the markers of a field off it.
    fn take(&mut self, field: &mut Field) -> Result<()> {
        let Some(ident) = field.ident.clone() else { return Ok(()) };
        let mut kept = Vec::new();
        for attribute in std::mem::take(&mut field.attrs) {
            let word = match attribute.path().get_ident() {
                Some(word) if !matches!(word.to_string().as_str(), "doc" | "cfg" | "allow" | "serde") => word.clone(),
                Some(word) if word == "serde" => {
                    let message = "how the fields of a state are written is part of its schema, and not to be changed";
                    return Err(Error::new(word.span(), message));
                }
                _ => {
                    kept.push(attribute);
                    continue;
                }
            };
            let place = match word.to_string().as_str() {
                "linear_id" => &mut self.linear_id,
                "external_id" => &mut self.external_id,
                "owner" => &mut self.owner,
                "quantity" => &mut self.quantity,
                "token" => &mut self.token,
                "issuer" => &mut self.issuer,
                "next_activity" => &mut self.next_activity,
                "participant" => {
                    self.participants.push(ident.clone());
                    continue;
                }
                "query" => {
                    self.queries.push((ident.clone(), field.ty.clone()));
                    continue;
                }
                _ => return Err(Error::new(word.span(), format!("expected one of: {ROLES}"))),
            };
            if place.replace(ident.clone()).is_some() {
                return Err(Error::new(word.span(), format!("another field is the {word} already")));
            }
        }
        field.attrs = kept;
        Ok(())
    }

    fn check(&self, at: &Ident) -> Result<()> {
        if self.quantity.is_some() != self.token.is_some() {
            return Err(Error::new(at.span(), "an amount is a #[quantity] and a #[token]"));
        }
        if self.issuer.is_some() && self.quantity.is_none() {
            return Err(Error::new(at.span(), "an #[issuer] is that of a #[quantity]"));
        }
        Ok(())
    }

    /// The body of `describe`.
    fn describe(&self) -> TokenStream {
        let some = |field: &Ident, value: TokenStream| quote!(#field: ::core::option::Option::Some(#value),);
        let mut fields = TokenStream::new();
        let any_party = |ident: &Ident| quote!(::maxhost_contract::HasKey::any_party(&self.#ident));
        // An owner is a participant too.
        let participants =
            self.participants.iter().chain(self.owner.iter().filter(|owner| !self.participants.contains(owner)));
        let participants = participants.map(any_party);
        fields.extend(quote!(participants: ::maxhost_contract::__private::vec![#(#participants),*],));
        if let Some(owner) = &self.owner {
            fields.extend(some(&format_ident!("owner"), any_party(owner)));
        }
        if let Some(id) = &self.linear_id {
            fields.extend(some(&format_ident!("linear_id"), quote!(self.#id)));
        }
        if let Some(id) = &self.external_id {
            let text = quote!(::core::convert::Into::into(::core::clone::Clone::clone(&self.#id)));
            fields.extend(quote!(external_id: #text,));
        }
        if let Some(next) = &self.next_activity {
            fields
                .extend(quote!(next_activity: ::core::convert::Into::into(::core::clone::Clone::clone(&self.#next)),));
        }
        if let (Some(quantity), Some(token)) = (&self.quantity, &self.token) {
            let issuer = match &self.issuer {
                Some(issuer) => {
                    let party = any_party(issuer);
                    quote!(::core::option::Option::Some(#party))
                }
                None => quote!(::core::option::Option::None),
            };
            let amount = quote!(::maxhost_contract::FungibleAmount {
                quantity: self.#quantity,
                token: ::core::convert::Into::into(::core::clone::Clone::clone(&self.#token)),
                issuer: #issuer,
            });
            fields.extend(some(&format_ident!("amount"), amount));
        }
        let attributes = self.queries.iter().map(|(ident, _)| {
            let name = ident.to_string();
            quote!(if let ::core::option::Option::Some(value) = ::maxhost_contract::IntoAttribute::attribute(&self.#ident) {
                description.attributes.push((#name, value));
            })
        });
        quote! {
            #[allow(unused_mut, clippy::needless_update)]
            let mut description = ::maxhost_contract::Description {
                #fields
                ..::core::default::Default::default()
            };
            #(#attributes)*
            description
        }
    }
}

pub fn expand(attributes: &StateAttributes, mut item: ItemStruct) -> Result<TokenStream> {
    let mut roles = Roles::default();
    let Fields::Named(fields) = &mut item.fields else {
        return Err(Error::new(item.ident.span(), "a type of states is a struct with named fields"));
    };
    for field in &mut fields.named {
        roles.take(field)?;
        if is_optional(&field.ty) {
            field.attrs.push(syn::parse_quote!(#[serde(default)]));
        }
    }
    roles.check(&item.ident)?;
    let idents: Vec<Ident> = fields.named.iter().filter_map(|field| field.ident.clone()).collect();
    let types: Vec<syn::Type> = fields.named.iter().map(|field| field.ty.clone()).collect();
    let names: Vec<String> = idents.iter().map(|ident| ident.to_string()).collect();
    let constants: Vec<Ident> = names.iter().map(|name| format_ident!("{}", name.to_uppercase())).collect();
    let times: Vec<String> = fields
        .named
        .iter()
        .filter(|field| is_time(&field.ty))
        .filter_map(|field| field.ident.as_ref().map(ToString::to_string))
        .collect();
    let ident = &item.ident;
    let contract = &attributes.contract;
    let name = attributes.name.clone().unwrap_or_else(|| LitStr::new(&ident.to_string(), ident.span()));
    let version = attributes.version;
    let derives = data_derives();
    let describe = roles.describe();
    let linear_id = roles.linear_id.iter().map(|id| {
        quote!(fn linear_id(&self) -> ::core::option::Option<::maxhost_contract::LinearId> {
            ::core::option::Option::Some(self.#id)
        })
    });
    let declared = roles.queries.iter().map(|(ident, ty)| {
        let name = ident.to_string();
        quote!(::maxhost_contract::Attribute { name: #name, kind: <#ty as ::maxhost_contract::IntoAttribute>::KIND })
    });
    Ok(quote! {
        #derives
        #item

        #[allow(dead_code, missing_docs)]
        impl #ident {
            #(pub const #constants: &'static str = #names;)*
        }

        impl ::maxhost_contract::State for #ident {
            const CONTRACT: &'static str = #contract;
            const NAME: &'static str = #name;
            const VERSION: u32 = #version;
            const ATTRIBUTES: &'static [::maxhost_contract::Attribute] = &[#(#declared),*];

            fn schema() -> ::maxhost_contract::__private::String {
                let mut out = ::maxhost_contract::__private::String::new();
                #(
                    out.push_str(#names);
                    out.push_str(": ");
                    <#types as ::maxhost_contract::DataType>::type_words(&mut out);
                    out.push('\n');
                )*
                out
            }

            fn times() -> &'static [&'static str] {
                &[#(#times),*]
            }

            fn describe(&self) -> ::maxhost_contract::Description {
                #describe
            }

            #[allow(unused_mut)]
            fn pointers(&self) -> ::maxhost_contract::__private::Vec<::maxhost_contract::Target> {
                let mut out = ::maxhost_contract::__private::Vec::new();
                #(::maxhost_contract::DataType::pointers(&self.#idents, &mut out);)*
                out
            }

            #(#linear_id)*

            fn differing_fields(&self, other: &Self) -> ::maxhost_contract::__private::Vec<&'static str> {
                let mut differing = ::maxhost_contract::__private::Vec::new();
                #(if self.#idents != other.#idents { differing.push(#names); })*
                differing
            }
        }
    })
}

/// Whether a type is a point in time, or an optional one.
fn is_time(ty: &syn::Type) -> bool {
    let syn::Type::Path(path) = ty else { return false };
    let Some(last) = path.path.segments.last() else { return false };
    if last.ident == "Timestamp" {
        return true;
    }
    match &last.arguments {
        syn::PathArguments::AngleBracketed(inner) if last.ident == "Option" => {
            inner.args.iter().any(|one| matches!(one, syn::GenericArgument::Type(ty) if is_time(ty)))
        }
        _ => false,
    }
}
