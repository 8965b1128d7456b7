//! `#[flow]` and `cordapp!` of maxhost-sdk, and the macros of maxhost-contract, which document them.

mod attributes;
mod cordapp;
mod flow;
mod ledger;

use proc_macro::TokenStream;

/// Makes a function a flow.
///
/// Says what starts it, at least one of:
///
/// - `startable`: a client, with one argument (anything that is `Deserialize` and `JsonSchema`) or none. It may open
///   sessions.
/// - `responds_to = "ping"`: a peer that runs the flow `ping` of this CorDapp and opens a session;
///   `responds_to = "other-cordapp/flow"` for a flow of another. Its one argument is the `Session`. It may open sessions
///   only if marked `initiating`.
/// - `initiating`: another flow of this CorDapp, by calling it. The sessions it opens are of its own protocol.
///
/// Besides: `version = 2` (of the protocol, 1 if not said), `name = "other-name"` (else the function's, with hyphens for
/// underscores), `initiating = false`.
///
/// A flow that calls another flow's function runs it as a part of itself. The first paragraph of the documentation is what
/// clients read about the flow.
#[proc_macro_attribute]
pub fn flow(attributes: TokenStream, function: TokenStream) -> TokenStream {
    let attributes = syn::parse_macro_input!(attributes as attributes::FlowAttributes);
    let function = syn::parse_macro_input!(function as syn::ItemFn);
    // The function stays in any case, so that its callers are not errors too.
    let unchanged = function.clone();
    let expanded = flow::expand(&attributes, function).unwrap_or_else(|error| {
        let error = error.into_compile_error();
        quote::quote!(#error #unchanged)
    });
    expanded.into()
}

/// Lists the flows of a CorDapp, by the paths of their functions, once in a crate: `cordapp! { flows: [ping, pong] }`.
///
/// Name, version and vendor are the package's, its authors being the vendor; `name: "…"`, `version: "…"` and
/// `vendor: "…"` say otherwise.
#[proc_macro]
pub fn cordapp(input: TokenStream) -> TokenStream {
    cordapp::expand(&syn::parse_macro_input!(input as cordapp::Cordapp)).into()
}

/// Makes a struct with named fields a type of states: `#[state(contract = "iou", version = 1)]`.
///
/// Fields are marked with what they are to the vault: `#[linear_id]`, `#[external_id]`, `#[participant]`, `#[owner]`,
/// `#[quantity]` with `#[token]` and perhaps `#[issuer]`, `#[next_activity]`, and `#[query]` for what can be asked for as an
/// attribute besides. Types of fields are those that have a `DataType`: plain ones, and what is marked `#[data]`.
///
/// A type is changed by appending fields of type `Option` and raising `version`; states of before read such fields as
/// `None`. For each field there is a constant with its name: `Iou::OWED`.
#[proc_macro_attribute]
pub fn state(attributes: TokenStream, item: TokenStream) -> TokenStream {
    let attributes = syn::parse_macro_input!(attributes as ledger::state::StateAttributes);
    let item = syn::parse_macro_input!(item as syn::ItemStruct);
    or_error(ledger::state::expand(&attributes, item))
}

/// Makes a struct or an enum a type that fields of states may have.
#[proc_macro_attribute]
pub fn data(_attributes: TokenStream, item: TokenStream) -> TokenStream {
    or_error(ledger::data::expand(syn::parse_macro_input!(item as syn::Item)))
}

/// Makes an enum the commands of a contract. Variants have named fields, or none.
#[proc_macro_attribute]
pub fn commands(_attributes: TokenStream, item: TokenStream) -> TokenStream {
    or_error(ledger::commands::expand(&syn::parse_macro_input!(item as syn::ItemEnum)))
}

/// Makes an enum the faults of a contract. The code of a variant is its name with hyphens (`OverPaid` is `over-paid`), and
/// its documentation is what people read when it happens.
#[proc_macro_attribute]
pub fn faults(_attributes: TokenStream, item: TokenStream) -> TokenStream {
    or_error(ledger::faults::expand(&syn::parse_macro_input!(item as syn::ItemEnum)))
}

/// Makes a type a contract: `#[contract(name = "iou", states = [Iou], commands = Command, faults = Fault)] impl IouContract`.
///
/// A function marked `#[on(Command::Pay)]` is the rule of that command: it gets the transaction, and the fields of the
/// command by their names. One marked `#[always]` is asked before each rule. A command without a rule is refused; so is a
/// transaction with states of the contract and no command to it.
#[proc_macro_attribute]
pub fn contract(attributes: TokenStream, item: TokenStream) -> TokenStream {
    let attributes = syn::parse_macro_input!(attributes as ledger::contract::ContractAttributes);
    let item = syn::parse_macro_input!(item as syn::ItemImpl);
    or_error(ledger::contract::expand(&attributes, item))
}

/// Lists the contracts of a crate, once: `contracts! { contracts: [IouContract], code_version: 1 }`. Writes the type `Code`.
///
/// `code_version` counts the releases: no state goes back to code with a lower one. The name is the package's without
/// `-contract` at its end; version and vendor are the package's too, its authors being the vendor; `name: "…"`,
/// `version: "…"` and `vendor: "…"` say otherwise. With `no_propagation: true` the constraints of outputs are the author's
/// matter.
#[proc_macro]
pub fn contracts(input: TokenStream) -> TokenStream {
    ledger::code::expand(&syn::parse_macro_input!(input as ledger::code::Code)).into()
}

fn or_error(expanded: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}
