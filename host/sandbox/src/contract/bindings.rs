//! The world `contract` as Rust: generated from `wit/contract.wit`.
#![allow(missing_docs)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "contract",
    exports: { default: async },
});

/// The world `contract-pointers`, which not all code has.
pub mod pointers {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "contract-pointers",
        exports: { default: async },
    });
}
