//! Profile 1 of WebAssembly: what contract code may be made of.

use maxhost_sandbox::SandboxError;
use maxhost_sandbox::contract::{check_profile, operator_cost_hash};

/// Whoever changes this value changes verdicts: it takes a new profile.
#[test]
fn the_price_of_every_operator_is_pinned() {
    assert_eq!(
        operator_cost_hash().unwrap().to_string(),
        "f97a62cc3fbe55a98ff4ee8ed6d63bbf217c5713f0dbe89a6bd1279c28683240"
    );
}

fn component(module: &str) -> Vec<u8> {
    wat::parse_str(format!("(component (core module {module}))")).unwrap()
}

fn refusal(module: &str) -> String {
    check_profile(&component(module)).unwrap_err().to_string()
}

#[test]
fn what_compilers_make_by_default_is_in_the_profile() {
    let fine = [
        "(func (param i32) (result i32) local.get 0 i32.extend8_s)",
        "(global (mut i32) (i32.const 0)) (func (result i32 i32) i32.const 1 i32.const 2)",
        "(memory 1) (func i32.const 0 i32.const 0 i32.const 9 memory.copy i32.const 0 i32.const 0 i32.const 9 memory.fill)",
        "(func (param f64) (result i32) local.get 0 i32.trunc_sat_f64_u)",
        "(table 2 funcref) (elem (i32.const 0) func 0) (func i32.const 0 call_indirect)",
    ];
    for module in fine {
        check_profile(&component(module)).unwrap();
    }
}

#[test]
fn a_feature_that_is_not_allowed_is_named() {
    for (module, feature) in [
        ("(func (result v128) v128.const i32x4 0 0 0 0)", "simd128"),
        ("(memory 1 1 shared)", "atomics"),
        ("(memory 1) (memory 1)", "multimemory"),
        ("(memory i64 1)", "memory64"),
        ("(func return_call 0)", "tail-call"),
        ("(global i32 (i32.add (i32.const 1) (i32.const 2)))", "extended-const"),
        ("(func (param externref))", "reference-types"),
        ("(table 1 funcref) (func (result i32) ref.null func i32.const 1 table.grow)", "reference-types"),
        ("(tag) (func throw 0)", "exception-handling"),
    ] {
        let refusal = refusal(module);
        assert!(refusal.contains(&format!("`{feature}`")), "{module}: {refusal}");
    }
}

#[test]
fn nothing_is_imported_and_nothing_runs_unasked() {
    assert!(refusal("(func $f) (start $f)").contains("start function"));
    let importing = wat::parse_str("(component (import \"wasi:cli/stderr@0.2.6\" (instance)))").unwrap();
    let Err(SandboxError::ForbiddenImport { import }) = check_profile(&importing) else { panic!("taken") };
    assert_eq!(import, "wasi:cli/stderr@0.2.6");
    let nested = wat::parse_str("(component (component))").unwrap();
    assert!(check_profile(&nested).unwrap_err().to_string().contains("nested"));
}

#[test]
fn what_is_paid_for_by_nobody_has_a_bound() {
    let data = |bytes: usize| format!("(memory 32) (data (i32.const 0) \"{}\")", "x".repeat(bytes));
    check_profile(&component(&data(1 << 20))).unwrap();
    assert!(refusal(&data((1 << 20) + 1)).contains("data segments"));
    let locals = |count: usize| format!("(func (local {}))", "i32 ".repeat(count));
    check_profile(&component(&locals(2_048))).unwrap();
    assert!(refusal(&locals(2_049)).contains("locals"));
    let operands = |count: usize| format!("(func {} {})", "i32.const 1 ".repeat(count), "drop ".repeat(count));
    check_profile(&component(&operands(1_024))).unwrap();
    assert!(refusal(&operands(1_025)).contains("operands"));
}

#[test]
fn what_is_no_component_is_refused() {
    for bad in [&b""[..], b"\0asm", b"\0asm\x01\0\0\0", b"hello"] {
        assert!(matches!(check_profile(bad), Err(SandboxError::Invalid { .. })), "{bad:?}");
    }
}
