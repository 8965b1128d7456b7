//! WebAssembly profile 1: what contract code may be made of (behaviour.md 10.20).
//!
//! Compilers switch features on by themselves, and each new one is a new way for two hosts to differ. So there is one
//! list, which holds at build, at install and whenever code is loaded; it changes with the network parameters only.

use wasmparser::{
    ComponentTypeRef, DataKind, Encoding, FuncValidatorAllocations, Parser, Payload, TypeBounds, ValidPayload,
    Validator, WasmFeatures,
};

use crate::error::SandboxError;

/// What is allowed: WebAssembly 1.0 with sign extension, mutable globals, multi-value, saturating conversion, bulk memory,
/// floats (NaNs are made canonical), and the longer encoding of indirect calls that reference types brought; components
/// around it.
const ALLOWED: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::CALL_INDIRECT_OVERLONG)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::COMPONENT_MODEL);

/// What is not, by the names that compilers use.
const FORBIDDEN: [(&str, WasmFeatures); 16] = [
    ("simd128", WasmFeatures::SIMD),
    ("relaxed-simd", WasmFeatures::RELAXED_SIMD.union(WasmFeatures::SIMD)),
    ("atomics", WasmFeatures::THREADS),
    ("tail-call", WasmFeatures::TAIL_CALL),
    ("extended-const", WasmFeatures::EXTENDED_CONST),
    ("multimemory", WasmFeatures::MULTI_MEMORY),
    ("memory64", WasmFeatures::MEMORY64),
    ("reference-types", WasmFeatures::REFERENCE_TYPES.union(WasmFeatures::GC_TYPES)),
    ("exception-handling", WasmFeatures::EXCEPTIONS),
    ("legacy exception-handling", WasmFeatures::LEGACY_EXCEPTIONS),
    ("function-references", WasmFeatures::FUNCTION_REFERENCES.union(WasmFeatures::REFERENCE_TYPES)),
    ("gc", WasmFeatures::GC.union(WasmFeatures::FUNCTION_REFERENCES).union(WasmFeatures::REFERENCE_TYPES)),
    ("wide-arithmetic", WasmFeatures::WIDE_ARITHMETIC),
    ("custom-page-sizes", WasmFeatures::CUSTOM_PAGE_SIZES),
    ("stack-switching", WasmFeatures::STACK_SWITCHING),
    ("component-model async", WasmFeatures::CM_ASYNC),
];

/// The largest code, bytes.
const MAX_CODE: usize = 4 << 20;
/// The most bytes that its data segments fill memory with: instantiation is not paid for by fuel.
const MAX_DATA: usize = 1 << 20;
/// The most functions: they bound what compiling costs.
const MAX_FUNCTIONS: u32 = 20_000;
/// The most locals and operands of one function. Each is at most eight bytes of a frame, and operands may be there twice
/// (as arguments too), so a frame has at most 32 KiB, and [`super::depth::MAX_DEPTH`] frames fit the stack.
const MAX_LOCALS: u32 = 2_048;
const MAX_OPERANDS: u32 = 1_024;

/// Checks code against the profile.
///
/// # Errors
/// [`SandboxError::ProfileFeature`] names the feature that is not allowed, [`SandboxError::ForbiddenImport`] whatever is
/// imported, [`SandboxError::TooLarge`] a bound, [`SandboxError::Invalid`] what is no component.
pub fn check_profile(code: &[u8]) -> Result<(), SandboxError> {
    if code.len() > MAX_CODE {
        return too_large(format!("{} bytes of code, at most {MAX_CODE} are allowed", code.len()));
    }
    if Parser::is_core_wasm(code) {
        return Err(SandboxError::invalid("it is a core module, and a contract is a component"));
    }
    check_features(code)?;
    check_parts(code)
}

fn check_features(code: &[u8]) -> Result<(), SandboxError> {
    let error = match validate(code, ALLOWED) {
        Ok(operands) if operands <= MAX_OPERANDS => return Ok(()),
        Ok(operands) => {
            return too_large(format!(
                "a function with {operands} operands at once, at most {MAX_OPERANDS} are allowed"
            ));
        }
        Err(error) => error,
    };
    // A feature is to blame if allowing it too brings the validator further.
    let further = |features: WasmFeatures| {
        let again = validate(code, ALLOWED.union(features));
        again.map_or_else(|other| other.offset() > error.offset(), |_| true)
    };
    match FORBIDDEN.iter().find(|(_, features)| further(*features)) {
        Some((feature, _)) => {
            Err(SandboxError::ProfileFeature { feature: (*feature).to_owned(), offset: error.offset() as u64 })
        }
        None => {
            let reason = format!("it is not valid at byte {}: {}", error.offset(), error.message());
            Err(SandboxError::Invalid { reason, source: Some(std::sync::Arc::new(error)) })
        }
    }
}

/// Validates code with these features. Gives the most operands that a function of it has at once.
fn validate(code: &[u8], features: WasmFeatures) -> Result<u32, wasmparser::BinaryReaderError> {
    let mut validator = Validator::new_with_features(features);
    let mut most = 0;
    for payload in Parser::new(0).parse_all(code) {
        if let ValidPayload::Func(function, body) = validator.payload(&payload?)? {
            let mut function = function.into_validator(FuncValidatorAllocations::default());
            function.read_locals(&mut body.get_binary_reader())?;
            let mut operators = body.get_operators_reader()?;
            while !operators.eof() {
                let offset = operators.original_position();
                function.op(offset, &operators.read()?)?;
                most = most.max(function.operand_stack_height());
            }
            operators.finish()?;
        }
    }
    Ok(most)
}

fn check_parts(code: &[u8]) -> Result<(), SandboxError> {
    let (mut depth, mut data, mut functions) = (0_usize, 0_usize, 0_u32);
    for payload in Parser::new(0).parse_all(code) {
        match payload.map_err(damaged)? {
            Payload::Version { encoding: Encoding::Component, .. } if depth > 0 => {
                return Err(SandboxError::invalid("a component is nested in it"));
            }
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    let import = import.map_err(damaged)?;
                    // The name of a type that the world itself defines: nothing to supply.
                    if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                        return Err(SandboxError::ForbiddenImport { import: import.name.name.to_owned() });
                    }
                }
            }
            Payload::StartSection { .. } | Payload::ComponentStartSection { .. } => {
                return Err(SandboxError::invalid(
                    "it has a start function: code that runs before it is asked anything",
                ));
            }
            Payload::FunctionSection(section) => {
                functions = functions.saturating_add(section.count());
                if functions > MAX_FUNCTIONS {
                    return too_large(format!("more than {MAX_FUNCTIONS} functions"));
                }
            }
            Payload::CodeSectionEntry(body) => {
                let mut locals = 0_u32;
                for group in body.get_locals_reader().map_err(damaged)? {
                    locals = locals.saturating_add(group.map_err(damaged)?.0);
                }
                if locals > MAX_LOCALS {
                    return too_large(format!("a function with {locals} locals, at most {MAX_LOCALS} are allowed"));
                }
            }
            Payload::DataSection(section) => {
                for segment in section {
                    let segment = segment.map_err(damaged)?;
                    if matches!(segment.kind, DataKind::Active { .. }) {
                        data = data.saturating_add(segment.data.len());
                    }
                }
                if data > MAX_DATA {
                    return too_large(format!("{data} bytes of data segments, at most {MAX_DATA} are allowed"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn too_large<T>(reason: String) -> Result<T, SandboxError> {
    Err(SandboxError::TooLarge { reason })
}

fn damaged(error: wasmparser::BinaryReaderError) -> SandboxError {
    let reason = format!("it is damaged or cut off at byte {}: {}", error.offset(), error.message());
    SandboxError::Invalid { reason, source: Some(std::sync::Arc::new(error)) }
}
