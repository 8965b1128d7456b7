//! Loading: what is refused and why, and that machine code is made once.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use maxhost_model::{Code, Problem};
use maxhost_sandbox::{Sandbox, SandboxError, inspect};

use crate::support::{guest, host, invocation, options, parameters, returned, sandbox};

fn refusal(wasm: &[u8]) -> SandboxError {
    match sandbox().load(wasm) {
        Ok(component) => panic!("loaded {component:?}"),
        Err(error) => {
            assert!(!error.is_retriable(), "{error}");
            error
        }
    }
}

fn code(error: &SandboxError) -> Code {
    Problem::from(error.clone()).code
}

/// A component of the two exports, whose core module is `module`; `more` comes before.
fn component_text(more: &str, module: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            {more}
            (core module $m {module})
            (core instance $i (instantiate $m))
            (func (export "describe") (canon lift (core func $i "describe")))
            (func (export "run") (canon lift (core func $i "run"))))"#
    );
    wat::parse_str(text).unwrap()
}

const EMPTY: &str = r#"(func (export "describe")) (func (export "run"))"#;

#[test]
fn what_is_not_a_component_is_refused_with_a_plain_reason() {
    for (wasm, word) in [
        (Vec::new(), "magic"),
        (b"hello, this is no program".to_vec(), "magic"),
        (wat::parse_str("(module)").unwrap(), "core module"),
        (guest()[..guest().len() / 2].to_vec(), "cut off"),
        (b"\0asm\x0d\0\x01\0\xff\xff\xff".to_vec(), "damaged"),
    ] {
        let error = refusal(&wasm);
        assert_eq!(code(&error), Code::ComponentInvalid, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn bytes_that_parse_but_do_not_validate_are_refused() {
    // Adds two numbers that are not there.
    let mut wasm = component_text("", &format!("{EMPTY} (func (drop (i32.add (i32.const 1) (i32.const 2))))"));
    let add = wasm.windows(6).position(|bytes| bytes == [0x41, 1, 0x41, 2, 0x6a, 0x1a]).unwrap();
    wasm[add + 2] = 0x01;
    wasm[add + 3] = 0x01;
    let error = refusal(&wasm);
    assert_eq!(code(&error), Code::ComponentInvalid, "{error}");
}

#[test]
fn a_forbidden_import_is_named() {
    for import in ["wasi:http/outgoing-handler@0.2.3", "maxhost:cordapp/flow@0.2.0", "my-own"] {
        let wasm = component_text(&format!(r#"(import "{import}" (instance))"#), EMPTY);
        let error = refusal(&wasm);
        assert!(matches!(&error, SandboxError::ForbiddenImport { import: named } if named == import), "{error}");
        assert_eq!(code(&error), Code::ComponentForbiddenImport);
    }
}

#[test]
fn imports_of_files_and_sockets_are_no_reason_to_refuse() {
    let imports = guest_imports();
    for needed in ["wasi:sockets/network", "wasi:sockets/tcp-create-socket", "wasi:filesystem/preopens"] {
        assert!(imports.iter().any(|import| import.starts_with(needed)), "{imports:?}");
    }
}

fn guest_imports() -> Vec<String> {
    sandbox().load(guest()).unwrap().imports.clone()
}

#[test]
fn a_function_that_this_host_does_not_have_is_named() {
    let import = r#"(import "maxhost:cordapp/flow@0.1.9" (instance (export "teleport" (func))))"#;
    let error = refusal(&component_text(import, EMPTY));
    assert_eq!(code(&error), Code::ComponentWrongWorld, "{error}");
    assert!(error.to_string().contains("teleport"), "{error}");
}

#[test]
fn a_missing_export_is_named() {
    let run_only = wat::parse_str(
        r#"(component (core module $m (func (export "run"))) (core instance $i (instantiate $m))
            (func (export "run") (canon lift (core func $i "run"))))"#,
    );
    let contract = wat::parse_str(
        r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
            (func (export "describe") (canon lift (core func $i "f")))
            (func (export "describe-state") (canon lift (core func $i "f")))
            (func (export "verify") (canon lift (core func $i "f"))))"#,
    );
    for (wasm, word) in [
        (wat::parse_str("(component)"), "neither"),
        (run_only, "`describe`"),
        (contract, "contract"),
        (Ok(component_text("", EMPTY)), "describe"),
    ] {
        let error = refusal(&wasm.unwrap());
        assert_eq!(code(&error), Code::ComponentWrongWorld, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_component_that_starts_with_too_much_memory_is_refused() {
    for wasm in [
        component_text("", &format!("(memory 2048) {EMPTY}")),
        component_text("", &format!("(table 100000 funcref) {EMPTY}")),
    ] {
        let error = refusal(&wasm);
        assert_eq!(code(&error), Code::ComponentTooLarge, "{error}");
        // Without a pool it is the same.
        assert_eq!(code(&inspect(&wasm).unwrap_err()), Code::ComponentTooLarge);
    }
}

#[test]
fn functions_of_wasi_that_do_not_exist_are_named() {
    let import = r#"(import "wasi:filesystem/types@0.2.99" (instance
        (export "descriptor" (type (sub resource)))
        (export "time-travel" (func (param "to" u64)))))"#;
    let error = refusal(&component_text(import, EMPTY));
    assert_eq!(code(&error), Code::ComponentWrongWorld, "{error}");
    assert!(error.to_string().contains("time-travel"), "{error}");
}

/// The guest with some of its bytes replaced by as many others.
fn patched(old: &str, new: &str) -> Vec<u8> {
    let mut wasm = guest().to_vec();
    let at = wasm.windows(old.len()).position(|bytes| bytes == old.as_bytes()).unwrap();
    wasm[at..at + old.len()].copy_from_slice(new.as_bytes());
    wasm
}

#[test]
fn a_describe_that_fails_is_told_with_its_reason() {
    for (mode, word) in
        [("panic!", "no idea what I am"), ("spin!!", "computed for more than"), ("flow!!", "our-identity")]
    {
        let error = refusal(&patched("describe-mode:normal", &format!("describe-mode:{mode}")));
        assert!(matches!(error, SandboxError::DescribeFailed { .. }), "{error}");
        assert_eq!(code(&error), Code::ComponentDescribeFailed);
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_descriptor_against_the_rules_is_told_with_its_field() {
    let error = refusal(&patched("sandbox-test0.1.0maxhost", "Sandbox-test0.1.0maxhost"));
    assert!(matches!(&error, SandboxError::DescriptorInvalid { path, .. } if path == "name"), "{error}");
    assert!(error.to_string().contains("Sandbox-test"), "{error}");
}

#[test]
fn what_a_cordapp_says_of_itself_is_there() {
    let component = sandbox().load(guest()).unwrap();
    assert_eq!(component.descriptor.name, "sandbox-test");
    let echo = component.descriptor.flows.iter().find(|flow| flow.name == "echo").unwrap();
    assert!(echo.startable && echo.version == 1 && echo.arguments == Some(true.into()));
    assert_eq!(component.bytes, guest().len());
    assert!(component.imports.iter().any(|name| name == "maxhost:cordapp/flow@0.1.0"), "{:?}", component.imports);

    let inspection = inspect(guest()).unwrap();
    assert_eq!((inspection.world, inspection.hash), ("flows", component.hash));
    assert_eq!(inspection.descriptor, component.descriptor);
}

#[test]
fn all_who_load_at_once_get_one_component_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::new(options(folder.path())).unwrap();
    let loaded = std::thread::scope(|scope| {
        let threads = (0..8).map(|_| scope.spawn(|| sandbox.load(guest()).unwrap())).collect::<Vec<_>>();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(loaded.iter().all(|component| Arc::ptr_eq(component, &loaded[0])));
    assert_eq!((sandbox.statistics().compiled, sandbox.statistics().from_cache), (1, 0));
}

#[tokio::test]
async fn machine_code_outlives_the_sandbox_but_not_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let load = || {
        let sandbox = Sandbox::new(options(folder.path())).unwrap();
        let component = sandbox.load(guest()).unwrap();
        (sandbox.statistics(), component)
    };
    assert_eq!(load().0.compiled, 1);
    let (again, component) = load();
    assert_eq!((again.compiled, again.from_cache), (0, 1));
    let end = component.run(host().0, invocation("echo", b"from the cache"), &parameters()).await;
    assert_eq!(returned(end), b"from the cache");
    drop(component);

    // Code that was tampered with, cut off, or has lost its digest is compiled again.
    let file = |extension: &str| -> PathBuf {
        let mut found = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        found.find(|path| path.extension().is_some_and(|end| end == extension)).unwrap()
    };
    let whole = fs::read(file("cwasm")).unwrap();
    let mut tampered = whole.clone();
    tampered[whole.len() / 2] ^= 1;
    for damage in [tampered, whole[..whole.len() / 3].to_vec(), Vec::new()] {
        fs::write(file("cwasm"), damage).unwrap();
        let (statistics, component) = load();
        assert_eq!((statistics.compiled, statistics.from_cache), (1, 0));
        let end = component.run(host().0, invocation("echo", b"mended"), &parameters()).await;
        assert_eq!(returned(end), b"mended");
    }
    fs::remove_file(file("blake3")).unwrap();
    assert_eq!(load().0.compiled, 1);
    assert_eq!(load().0.from_cache, 1);
}

#[cfg(unix)]
#[test]
fn compiled_code_is_nobody_elses_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("deep/code");
    let mode = || fs::metadata(&cache).unwrap().permissions().mode() & 0o777;
    Sandbox::new(options(&cache)).unwrap();
    assert_eq!(mode(), 0o700);
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    Sandbox::new(options(&cache)).unwrap();
    assert_eq!(mode(), 0o700);
}
