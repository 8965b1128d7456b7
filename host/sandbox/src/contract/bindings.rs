//! The world `contract` as Rust: generated from `wit/contract.wit`.
#![allow(missing_docs)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "contract",
    exports: { default: async },
});
