//! `#[flow]` and `cordapp!` of maxhost-sdk, which documents them.

mod attributes;
mod cordapp;
mod flow;

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
