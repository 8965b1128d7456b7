//! `contracts!`: the exports of a component.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, LitBool, LitInt, LitStr, Path, Result, Token, bracketed};

/// What stands in `contracts! { ... }`.
pub struct Code {
    contracts: Vec<Path>,
    code_version: LitInt,
    name: Option<LitStr>,
    version: Option<LitStr>,
    vendor: Option<LitStr>,
    no_propagation: bool,
}

impl Parse for Code {
    fn parse(input: ParseStream<'_>) -> Result<Code> {
        let (mut contracts, mut code_version, mut name, mut version, mut vendor) = (None, None, None, None, None);
        let mut no_propagation = false;
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            input.parse::<Token![:]>()?;
            match key.to_string().as_str() {
                "contracts" => {
                    let list;
                    bracketed!(list in input);
                    contracts = Some(Punctuated::<Path, Token![,]>::parse_terminated(&list)?.into_iter().collect());
                }
                "code_version" => {
                    let literal: LitInt = input.parse()?;
                    if literal.base10_parse::<u32>()? == 0 {
                        return Err(Error::new(literal.span(), "versions of code begin with 1"));
                    }
                    code_version = Some(literal);
                }
                "name" => name = Some(input.parse()?),
                "version" => version = Some(input.parse()?),
                "vendor" => vendor = Some(input.parse()?),
                "no_propagation" => no_propagation = input.parse::<LitBool>()?.value,
                _ => {
                    let words = "contracts, code_version, name, version, vendor, no_propagation";
                    return Err(Error::new(key.span(), format!("expected one of: {words}")));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(Code {
            contracts: contracts.ok_or_else(|| input.error("name the contracts: contracts: [IouContract]"))?,
            code_version: code_version.ok_or_else(|| input.error("count the releases of the code: code_version: 1"))?,
            name,
            version,
            vendor,
            no_propagation,
        })
    }
}

pub fn expand(code: &Code) -> TokenStream {
    let Code { contracts, code_version, name, version, vendor, no_propagation } = code;
    // A crate `iou-contract` is the contract side of the CorDapp `iou`.
    let name = match name {
        Some(name) => quote!(#name),
        None => quote!(::maxhost_contract::__private::cordapp_name(::core::env!("CARGO_PKG_NAME"))),
    };
    let or_package = |given: &Option<LitStr>, variable: &str| match given {
        Some(literal) => quote!(#literal),
        None => quote!(::core::env!(#variable)),
    };
    let version = or_package(version, "CARGO_PKG_VERSION");
    let vendor = or_package(vendor, "CARGO_PKG_AUTHORS");
    quote! {
        /// All contracts of this crate, as a component holds them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Code;

        impl ::maxhost_contract::ContractCode for Code {
            fn description() -> ::maxhost_contract::CodeDescription {
                ::maxhost_contract::CodeDescription {
                    name: #name,
                    version: #version,
                    vendor: #vendor,
                    code_version: #code_version,
                    no_propagation: #no_propagation,
                    contracts: ::maxhost_contract::__private::vec![
                        #(<#contracts as ::maxhost_contract::Contract>::description()),*
                    ],
                }
            }

            fn verify(
                contract: &::maxhost_contract::ContractId,
                transaction: &[u8],
            ) -> ::maxhost_contract::Verdict {
                let transaction = ::maxhost_contract::__private::transaction(transaction)?;
                #(if contract.name == <#contracts as ::maxhost_contract::Contract>::NAME {
                    return <#contracts as ::maxhost_contract::Contract>::verify(&transaction, contract);
                })*
                ::core::result::Result::Err(::maxhost_contract::__private::not_ours("contract", &contract.name))
            }

            fn describe(
                contract: &str,
                state_type: &str,
                state: &[u8],
            ) -> ::core::result::Result<::maxhost_contract::Description, ::maxhost_contract::Rejection> {
                #(if contract == <#contracts as ::maxhost_contract::Contract>::NAME {
                    return <#contracts as ::maxhost_contract::Contract>::describe(state_type, state);
                })*
                ::core::result::Result::Err(::maxhost_contract::__private::not_ours("contract", contract))
            }

            fn pointers(
                contract: &str,
                state_type: &str,
                state: &[u8],
            ) -> ::core::result::Result<
                ::maxhost_contract::__private::Vec<::maxhost_contract::Target>,
                ::maxhost_contract::Rejection,
            > {
                #(if contract == <#contracts as ::maxhost_contract::Contract>::NAME {
                    return <#contracts as ::maxhost_contract::Contract>::pointers(state_type, state);
                })*
                ::core::result::Result::Err(::maxhost_contract::__private::not_ours("contract", contract))
            }
        }

        #[cfg(all(feature = "component", target_arch = "wasm32"))]
        const _: () = {
            use ::maxhost_contract::__private::bindings;

            struct Component;

            impl ::maxhost_contract::__private::Guest for Component {
                fn describe_contract() -> bindings::ContractDescriptor {
                    ::maxhost_contract::__private::describe_contract::<Code>()
                }

                fn verify(
                    contract: bindings::ContractId,
                    transaction: ::maxhost_contract::__private::Vec<u8>,
                ) -> ::core::result::Result<(), bindings::Fault> {
                    ::maxhost_contract::__private::verify::<Code>(contract, &transaction)
                }

                fn describe(
                    contract: ::maxhost_contract::__private::String,
                    state_type: ::maxhost_contract::__private::String,
                    state: ::maxhost_contract::__private::Vec<u8>,
                ) -> ::core::result::Result<bindings::Description, bindings::Fault> {
                    ::maxhost_contract::__private::describe::<Code>(&contract, &state_type, &state)
                }

                fn pointers(
                    contract: ::maxhost_contract::__private::String,
                    state_type: ::maxhost_contract::__private::String,
                    state: ::maxhost_contract::__private::Vec<u8>,
                ) -> ::core::result::Result<
                    ::maxhost_contract::__private::Vec<bindings::PointerTarget>,
                    ::maxhost_contract::__private::String,
                > {
                    ::maxhost_contract::__private::pointers::<Code>(&contract, &state_type, &state)
                }
            }

            ::maxhost_contract::__private::export_contract!(
                Component with_types_in ::maxhost_contract::__private::bindings
            );
        };
    }
}
