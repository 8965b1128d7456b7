//! `#[contract]`: an `impl` with rules to a contract.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, FnArg, Ident, ImplItem, ItemImpl, LitStr, Pat, Path, Result, Token, bracketed};

use super::check_name;

/// What stands in `#[contract(...)]`.
pub struct ContractAttributes {
    name: LitStr,
    states: Vec<Path>,
    commands: Path,
    faults: Option<Path>,
}

impl Parse for ContractAttributes {
    fn parse(input: ParseStream<'_>) -> Result<ContractAttributes> {
        let (mut name, mut states, mut commands, mut faults) = (None, None, None, None);
        while !input.is_empty() {
            let word: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            match word.to_string().as_str() {
                "name" => name = Some(input.parse::<LitStr>()?),
                "states" => {
                    let list;
                    bracketed!(list in input);
                    states = Some(Punctuated::<Path, Token![,]>::parse_terminated(&list)?.into_iter().collect());
                }
                "commands" => commands = Some(input.parse()?),
                "faults" => faults = Some(input.parse()?),
                _ => return Err(Error::new(word.span(), "expected one of: name, states, commands, faults")),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let missing =
            |what: &str| input.error(format!("{what} is missing: name = \"iou\", states = [Iou], commands = Command"));
        let name = name.ok_or_else(|| missing("name"))?;
        check_name(&name)?;
        Ok(ContractAttributes {
            name,
            states: states.ok_or_else(|| missing("states"))?,
            commands: commands.ok_or_else(|| missing("commands"))?,
            faults,
        })
    }
}

pub fn expand(attributes: &ContractAttributes, mut item: ItemImpl) -> Result<TokenStream> {
    let (mut always, mut arms, mut seen) = (Vec::new(), Vec::new(), Vec::<String>::new());
    for part in &mut item.items {
        let ImplItem::Fn(function) = part else { continue };
        let mut kept = Vec::new();
        for attribute in std::mem::take(&mut function.attrs) {
            let ident = &function.sig.ident;
            if attribute.path().is_ident("always") {
                always.push(quote!(Self::#ident(tx)?;));
            } else if attribute.path().is_ident("on") {
                let variant: Path = attribute.parse_args()?;
                let words = quote!(#variant).to_string();
                if seen.contains(&words) {
                    return Err(Error::new_spanned(variant, "another function is the rule of this command already"));
                }
                let arguments = arguments(&function.sig.inputs)?;
                arms.push(quote!(#variant { #(#arguments,)* .. } => Self::#ident(tx, #(&#arguments),*),));
                seen.push(words);
            } else {
                kept.push(attribute);
            }
        }
        function.attrs = kept;
    }
    if arms.is_empty() {
        return Err(Error::new_spanned(&item.self_ty, "a contract has a rule: mark a function #[on(Command::Issue)]"));
    }
    let ContractAttributes { name, states, commands, faults } = attributes;
    let faults = match faults {
        Some(faults) => quote!(<#faults as ::maxhost_contract::Faults>::ALL),
        None => quote!(&[]),
    };
    let this = &item.self_ty;
    Ok(quote! {
        #item

        const _: () = {
            // Every type stands under the contract that lists it.
            #(assert!(
                ::maxhost_contract::__private::same(<#states as ::maxhost_contract::State>::CONTRACT, #name),
                "a type in `states` names another contract in its #[state]",
            );)*
        };

        impl ::maxhost_contract::Contract for #this {
            const NAME: &'static str = #name;

            fn description() -> ::maxhost_contract::ContractDescription {
                ::maxhost_contract::ContractDescription {
                    name: #name,
                    states: ::maxhost_contract::__private::vec![
                        #(::maxhost_contract::StateTypeDescription::of::<#states>()),*
                    ],
                    commands: <#commands as ::maxhost_contract::CommandSet>::NAMES,
                    faults: #faults,
                }
            }

            fn verify(
                transaction: &::maxhost_contract::RawTransaction,
                contract: &::maxhost_contract::ContractId,
            ) -> ::maxhost_contract::Verdict {
                ::maxhost_contract::__private::run::<#commands>(
                    transaction,
                    contract,
                    |state, is_output| {
                        #(if state.type_name == <#states as ::maxhost_contract::State>::NAME {
                            return ::maxhost_contract::__private::check_state::<#states>(state, is_output);
                        })*
                        ::core::result::Result::Err(::maxhost_contract::__private::not_ours("type", &state.type_name))
                    },
                    |tx, command| {
                        #(#always)*
                        #[allow(unreachable_patterns)]
                        match command {
                            #(#arms)*
                            other => ::core::result::Result::Err(::maxhost_contract::__private::no_rule(
                                ::maxhost_contract::CommandSet::name(&other),
                            )),
                        }
                    },
                )
            }

            fn describe(
                state_type: &str,
                state: &[u8],
            ) -> ::core::result::Result<::maxhost_contract::Description, ::maxhost_contract::Rejection> {
                #(if state_type == <#states as ::maxhost_contract::State>::NAME {
                    return ::maxhost_contract::__private::describe_state::<#states>(state);
                })*
                ::core::result::Result::Err(::maxhost_contract::__private::not_ours("type", state_type))
            }

            fn pointers(
                state_type: &str,
                state: &[u8],
            ) -> ::core::result::Result<
                ::maxhost_contract::__private::Vec<::maxhost_contract::Target>,
                ::maxhost_contract::Rejection,
            > {
                #(if state_type == <#states as ::maxhost_contract::State>::NAME {
                    return ::maxhost_contract::__private::pointers_of_state::<#states>(state);
                })*
                ::core::result::Result::Err(::maxhost_contract::__private::not_ours("type", state_type))
            }
        }
    })
}

/// The names of all arguments but the transaction: they are those of the command's fields.
fn arguments(inputs: &Punctuated<FnArg, Token![,]>) -> Result<Vec<Ident>> {
    let shape = "a rule is: fn pay(tx: &Tx, by: &u64) -> Verdict, with arguments named like the fields of its command";
    let mut names = Vec::new();
    for input in inputs {
        match input {
            FnArg::Typed(argument) => match &*argument.pat {
                Pat::Ident(name) => names.push(name.ident.clone()),
                other => return Err(Error::new_spanned(other, shape)),
            },
            FnArg::Receiver(receiver) => return Err(Error::new_spanned(receiver, shape)),
        }
    }
    match names.is_empty() {
        true => Err(Error::new_spanned(inputs, shape)),
        false => Ok(names.split_off(1)),
    }
}
