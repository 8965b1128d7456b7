//! Counting calls: how deep they may be nested is a number of profile 1, and not the size of a host's stack (behaviour.md
//! 10.20).
//!
//! How much native stack a call takes differs from machine to machine and from engine to engine, so a full stack must never
//! decide anything. Before code is compiled, every call in it is wrapped: a global counts one up before the call and one
//! down behind it, and what would be nested deeper than [`MAX_DEPTH`] traps. The bounds of [`super::profile`] on the locals
//! and operands of a function make sure that so many frames fit the stack that contracts run on.
//!
//! Bytes are copied as they are but for two sections of each module: the globals get one more, and in the code something is
//! inserted before and behind calls. Nothing that is inserted changes a label or an index.

use wasmparser::{BinaryReaderError, Encoding, FunctionBody, Operator, Parser, Payload};

use crate::error::SandboxError;

/// How many calls may be inside of each other.
pub(super) const MAX_DEPTH: u32 = 400;

/// The ids of sections, as WebAssembly and its component model number them.
const CORE_MODULE: u8 = 1;
const GLOBALS: u8 = 6;
const CODE: u8 = 10;
/// Custom sections may stand anywhere; all others stand in the order of their ids, but for two.
const CUSTOM: u8 = 0;
const TAGS: u8 = 13;
const PREAMBLE: usize = 8;

/// The component with its calls counted. It must have passed the profile.
///
/// # Errors
/// [`SandboxError::Invalid`] for what does not parse.
pub(super) fn count_calls(component: &[u8]) -> Result<Vec<u8>, SandboxError> {
    let mut out = component.get(..PREAMBLE).ok_or_else(cut_off)?.to_vec();
    for (id, content) in sections(component)? {
        match id {
            CORE_MODULE => section(id, &module(content)?, &mut out)?,
            _ => section(id, content, &mut out)?,
        }
    }
    Ok(out)
}

fn module(module: &[u8]) -> Result<Vec<u8>, SandboxError> {
    let counter = globals(module)?;
    let mut out = module.get(..PREAMBLE).ok_or_else(cut_off)?.to_vec();
    let mut counted = false;
    for (id, content) in sections(module)? {
        // The section of globals stands behind types, imports, functions, tables and memories (and tags).
        if !counted && id > GLOBALS && id != TAGS && id != CUSTOM {
            section(GLOBALS, &with_counter(None)?, &mut out)?;
            counted = true;
        }
        match id {
            GLOBALS => {
                section(id, &with_counter(Some(content))?, &mut out)?;
                counted = true;
            }
            CODE => section(id, &code(module, counter)?, &mut out)?,
            _ => section(id, content, &mut out)?,
        }
    }
    Ok(out)
}

/// The index that one more global gets.
fn globals(module: &[u8]) -> Result<u32, SandboxError> {
    let mut count = 0_u32;
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(|error| damaged(&error))? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(|error| damaged(&error))?;
                    count += u32::from(matches!(import.ty, wasmparser::TypeRef::Global(_)));
                }
            }
            Payload::GlobalSection(section) => count = count.saturating_add(section.count()),
            Payload::Version { encoding: Encoding::Component, .. } => return Err(cut_off()),
            _ => {}
        }
    }
    Ok(count)
}

/// A section of globals with one more: a mutable i32 that begins with zero.
fn with_counter(content: Option<&[u8]>) -> Result<Vec<u8>, SandboxError> {
    let (count, rest) = content.map_or(Ok((0, &[][..])), read_number)?;
    let mut out = Vec::new();
    write_number(count.saturating_add(1), &mut out);
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0x7f, 0x01, 0x41, 0x00, 0x0b]);
    Ok(out)
}

/// The code of a module with its calls counted.
fn code(module: &[u8], counter: u32) -> Result<Vec<u8>, SandboxError> {
    let mut bodies = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::CodeSectionEntry(body) = payload.map_err(|error| damaged(&error))? {
            bodies.push(function(module, &body, counter).map_err(|error| damaged(&error))?);
        }
    }
    let mut out = Vec::new();
    write_number(u32::try_from(bodies.len()).unwrap_or(u32::MAX), &mut out);
    for body in bodies {
        write_number(u32::try_from(body.len()).unwrap_or(u32::MAX), &mut out);
        out.extend_from_slice(&body);
    }
    Ok(out)
}

fn function(module: &[u8], body: &FunctionBody<'_>, counter: u32) -> Result<Vec<u8>, BinaryReaderError> {
    let (before, behind) = (before_call(counter), behind_call(counter));
    let range = body.range();
    let mut out = Vec::with_capacity(range.len() * 2);
    let mut copied = range.start;
    let mut copy_to = |out: &mut Vec<u8>, end: usize| {
        out.extend_from_slice(module.get(copied..end).unwrap_or_default());
        copied = end;
    };
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        let start = operators.original_position();
        let is_call = matches!(operators.read()?, Operator::Call { .. } | Operator::CallIndirect { .. });
        if is_call {
            copy_to(&mut out, start);
            out.extend_from_slice(&before);
            copy_to(&mut out, operators.original_position());
            out.extend_from_slice(&behind);
        }
    }
    copy_to(&mut out, range.end);
    Ok(out)
}

/// If the counter is at its end, a trap that no compiler of Rust makes: a NaN turned into an integer. Else one up.
fn before_call(counter: u32) -> Vec<u8> {
    let mut out = vec![0x23];
    write_number(counter, &mut out);
    out.push(0x41);
    write_signed(MAX_DEPTH, &mut out);
    // i32.ge_u, if, f32.const NaN, i32.trunc_f32_s, drop, end, global.get
    out.extend_from_slice(&[0x4f, 0x04, 0x40, 0x43, 0x00, 0x00, 0xc0, 0x7f, 0xa8, 0x1a, 0x0b, 0x23]);
    write_number(counter, &mut out);
    // i32.const 1, i32.add, global.set
    out.extend_from_slice(&[0x41, 0x01, 0x6a, 0x24]);
    write_number(counter, &mut out);
    out
}

fn behind_call(counter: u32) -> Vec<u8> {
    let mut out = vec![0x23];
    write_number(counter, &mut out);
    // i32.const 1, i32.sub, global.set
    out.extend_from_slice(&[0x41, 0x01, 0x6b, 0x24]);
    write_number(counter, &mut out);
    out
}

/// The sections of a module or component, with their ids.
fn sections(binary: &[u8]) -> Result<Vec<(u8, &[u8])>, SandboxError> {
    let mut rest = binary.get(PREAMBLE..).ok_or_else(cut_off)?;
    let mut found = Vec::new();
    while let Some((id, behind)) = rest.split_first() {
        let (length, behind) = read_number(behind)?;
        let (content, behind) = behind.split_at_checked(length as usize).ok_or_else(cut_off)?;
        found.push((*id, content));
        rest = behind;
    }
    Ok(found)
}

fn section(id: u8, content: &[u8], out: &mut Vec<u8>) -> Result<(), SandboxError> {
    out.push(id);
    write_number(u32::try_from(content.len()).map_err(|_| cut_off())?, out);
    out.extend_from_slice(content);
    Ok(())
}

/// An unsigned number in LEB128.
fn read_number(bytes: &[u8]) -> Result<(u32, &[u8]), SandboxError> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let rest = bytes.get(at + 1..).unwrap_or_default();
            return u32::try_from(value).map(|value| (value, rest)).map_err(|_| cut_off());
        }
    }
    Err(cut_off())
}

fn write_number(mut value: u32, out: &mut Vec<u8>) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// A number as a signed one, which takes a byte more if its highest bit would be taken for a sign.
fn write_signed(mut value: u32, out: &mut Vec<u8>) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 && low & 0x40 == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn cut_off() -> SandboxError {
    SandboxError::invalid("it is damaged or cut off")
}

fn damaged(error: &BinaryReaderError) -> SandboxError {
    SandboxError::invalid(format!("it is damaged or cut off at byte {}: {}", error.offset(), error.message()))
}
