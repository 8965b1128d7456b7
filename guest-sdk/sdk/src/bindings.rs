//! The WIT contract as Rust: written by wit-bindgen, used only through the modules `host` and `entry`.
#![allow(missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "maxhost:cordapp/flows",
    ownership: Borrowing { duplicate_if_necessary: false },
    pub_export_macro: true,
    export_macro_name: "export_flows",
    default_bindings_module: "maxhost_sdk::bindings",
});
