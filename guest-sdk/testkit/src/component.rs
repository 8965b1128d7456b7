//! Compiles CorDapps, each once in a test process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::command::Call;
use crate::error::{Error, Result};

/// A first build compiles all dependencies, on a busy machine.
const BUILD_TIMEOUT: Duration = Duration::from_secs(1_200);

/// What has been built, and what failed: with the build's words.
type Built = HashMap<PathBuf, std::result::Result<PathBuf, String>>;

fn built() -> MutexGuard<'static, Built> {
    static BUILT: OnceLock<Mutex<Built>> = OnceLock::new();
    // A test that panicked while it held the lock has at worst not added its entry.
    BUILT.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The component of the crate in this folder, or the file itself if it is one.
///
/// # Errors
/// When there is no host program, or the crate does not compile to a component it accepts.
pub fn component(source: &Path) -> Result<PathBuf> {
    if source.extension().is_some_and(|extension| extension == "wasm") {
        return Ok(source.to_owned());
    }
    // Held during the build: whoever needs the same component waits for it instead of building it too.
    let mut built = built();
    let outcome = match built.get(source) {
        Some(outcome) => outcome.clone(),
        None => {
            let outcome = build(source)?;
            built.insert(source.to_owned(), outcome.clone());
            outcome
        }
    };
    outcome.map_err(|output| Error::Build { folder: source.to_owned(), output })
}

fn build(folder: &Path) -> Result<std::result::Result<PathBuf, String>> {
    let answer = Call::new(&["cordapp", "build"]).arg(folder).output(BUILD_TIMEOUT)?;
    if answer.exit() != 0 {
        return Ok(Err(answer.text()));
    }
    let object = answer.object()?;
    match object.get("file").and_then(|file| file.as_str()) {
        Some(file) => Ok(Ok(PathBuf::from(file))),
        None => Err(answer.unexpected()),
    }
}

/// The crate whose tests are running.
///
/// # Errors
/// Outside of `cargo test`.
pub fn this_crate() -> Result<PathBuf> {
    std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).ok_or_else(|| Error::Build {
        folder: PathBuf::from("."),
        output: "CARGO_MANIFEST_DIR is not set: run the test with cargo, or name the CorDapp with \
                 TestNetwork::builder().cordapp(...)"
            .to_owned(),
    })
}
