//! A first look at a component, before anything is compiled: is it one, which world is it of, what does it import.

use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload, TypeBounds};

use crate::error::SandboxError;

/// Larger components are refused unread.
const MAX_BYTES: usize = 64 << 20;

/// The parts of WASI 0.2 that language runtimes import whether they use them or not. Of these the harmless functions work;
/// there are no files and no sockets, and whoever wants one is refused then.
const WASI_PACKAGES: [&str; 6] = ["cli", "io", "clocks", "random", "filesystem", "sockets"];

/// What a component says of itself on the outside.
#[derive(Debug, Default)]
pub(crate) struct ComponentShape {
    pub(crate) imports: Vec<String>,
    exports: Vec<String>,
}

impl ComponentShape {
    /// Reads the component's own import and export sections, not those of what is nested in it.
    pub(crate) fn read(wasm: &[u8]) -> Result<ComponentShape, SandboxError> {
        if wasm.len() > MAX_BYTES {
            let reason = format!("{} MiB of code, at most {} are allowed", wasm.len() >> 20, MAX_BYTES >> 20);
            return Err(SandboxError::TooLarge { reason });
        }
        if !wasm.starts_with(b"\0asm") {
            return Err(SandboxError::invalid("it does not begin with the WebAssembly magic bytes"));
        }
        let mut shape = ComponentShape::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(damaged)? {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                    return Err(SandboxError::invalid(
                        "it is a core module: compile for wasm32-wasip2, which makes components",
                    ));
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        let import = import.map_err(damaged)?;
                        // A type that the world uses from an interface: a name and nothing to supply.
                        if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                            shape.imports.push(import.name.name.to_owned());
                        }
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        shape.exports.push(export.map_err(damaged)?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(shape)
    }

    /// Refuses another world and forbidden imports.
    pub(crate) fn check(&self) -> Result<(), SandboxError> {
        if let Some(import) = self.imports.iter().find(|import| !is_allowed(import)) {
            return Err(SandboxError::ForbiddenImport { import: import.clone() });
        }
        let has = |name: &str| self.exports.iter().any(|export| export == name);
        let reason = match (has("describe"), has("run")) {
            (true, true) => return Ok(()),
            (_, false) if has("verify") => {
                "it exports `verify`: it is a contract, which belongs to the world maxhost:cordapp/contract".to_owned()
            }
            (true, false) => "it has no export `run`".to_owned(),
            (false, true) => "it has no export `describe`".to_owned(),
            (false, false) => "it exports neither `run` nor `describe`".to_owned(),
        };
        Err(SandboxError::WrongWorld { world: "flows", reason })
    }
}

/// Whether these bytes are a component that exports what contracts do. Whether it is a sound one, loading it tells.
#[must_use]
pub fn is_contract(wasm: &[u8]) -> bool {
    let has = |shape: &ComponentShape, name: &str| shape.exports.iter().any(|export| export == name);
    ComponentShape::read(wasm).is_ok_and(|shape| has(&shape, "describe-contract") && has(&shape, "verify"))
}

fn damaged(error: wasmparser::BinaryReaderError) -> SandboxError {
    let reason = format!("it is damaged or cut off at byte {}: {}", error.offset(), error.message());
    SandboxError::Invalid { reason, source: Some(std::sync::Arc::new(error)) }
}

fn is_allowed(import: &str) -> bool {
    if let Some(rest) = import.strip_prefix("maxhost:cordapp/") {
        return rest.split_once('@').is_some_and(|(_, version)| version.starts_with("0.1."));
    }
    wasi_interface(import).is_some()
}

/// `cli/stdout` of `wasi:cli/stdout@0.2.6`; `None` for what is not of an allowed package of WASI 0.2.
pub(crate) fn wasi_interface(import: &str) -> Option<&str> {
    let (interface, version) = import.strip_prefix("wasi:")?.split_once('@')?;
    let (package, _) = interface.split_once('/')?;
    (version.starts_with("0.2.") && WASI_PACKAGES.contains(&package)).then_some(interface)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn imports_are_allowed_by_package_and_version() {
        for good in [
            "maxhost:cordapp/flow@0.1.0",
            "maxhost:cordapp/types@0.1.7",
            "wasi:cli/stderr@0.2.3",
            "wasi:clocks/monotonic-clock@0.2.9",
            "wasi:filesystem/preopens@0.2.0",
            "wasi:sockets/network@0.2.0",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in [
            "maxhost:cordapp/flow@0.2.0",
            "maxhost:cordapp/flow",
            "maxhost:other/flow@0.1.0",
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:cli/stderr@0.3.0",
            "wasi:cli/stderr",
            "wasi:cli",
            "env",
            "",
        ] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn the_world_is_told_by_its_exports() {
        let shape = |exports: &[&str]| ComponentShape {
            imports: Vec::new(),
            exports: exports.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert!(shape(&["run", "describe", "more"]).check().is_ok());
        for (exports, word) in [
            (&["run"][..], "`describe`"),
            (&["describe"][..], "`run`"),
            (&["describe", "describe-state", "verify"][..], "contract"),
            (&[][..], "neither"),
        ] {
            let error = shape(exports).check().unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
