//! A development network for one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Answer, Call};
use crate::compiled;
use crate::component::{component, this_crate};
use crate::config::with_key;
use crate::error::{Error, FlowFailure, Result};
use crate::process::Host;

/// Where a host keeps what it has compiled, in its folder.
const CODE: &str = "data/code";
/// How long a command may take that waits for nothing but the host.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the parties of the development network live, as `maxhost init` has them; the others live with the first.
const PLACES: [(&str, &str); 3] =
    [("Alice", "L=London, C=GB"), ("Bob", "L=New York, C=US"), ("Carol", "L=Paris, C=FR")];

/// A network of identities on one host: a real process, with files of its own that go when this is dropped.
pub struct TestNetwork {
    // Dropped in this order: the process before its files.
    host: Mutex<Option<Host>>,
    _files: TempDir,
    folder: PathBuf,
    identities: Vec<(String, String)>,
    flow_timeout: Duration,
}

/// What a [`TestNetwork`] is to be like.
#[derive(Debug, Clone)]
pub struct Builder {
    identities: Vec<String>,
    cordapps: Vec<PathBuf>,
    settings: Vec<(String, String, String)>,
    flow_timeout: Duration,
}

impl TestNetwork {
    /// A network of these identities, all with the CorDapp of the crate under test. A short name such as `Alice` stands
    /// for `O=Alice, L=London, C=GB`.
    ///
    /// # Errors
    /// When there is no host program, the CorDapp does not compile, or the host does not start.
    pub fn new<N: Into<String>>(identities: impl IntoIterator<Item = N>) -> Result<TestNetwork> {
        TestNetwork::builder().identities(identities).build()
    }

    /// For a network that is different in some way.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            identities: Vec::new(),
            cordapps: Vec::new(),
            settings: Vec::new(),
            flow_timeout: Duration::from_secs(120),
        }
    }

    /// The X.500 name of an identity, as arguments of flows have it.
    ///
    /// # Panics
    /// When the network has no such identity: the test contradicts itself.
    #[must_use]
    pub fn party(&self, name: &str) -> String {
        match self.identity(name) {
            Ok(full) => full.to_owned(),
            Err(error) => contradiction(&error),
        }
    }

    /// Starts a flow and waits for its result.
    ///
    /// # Errors
    /// [`Error::Flow`] when the flow fails, [`Error::Command`] when it is not started.
    pub fn start(&self, identity: &str, flow: &str, arguments: impl Into<Value>) -> Result<Value> {
        let timeout = self.flow_timeout;
        let call = Call::new(&["flow", "start", flow]).of_host(self.folder());
        let call = call.arg("--identity").arg(self.identity(identity)?).arg(arguments.into().to_string());
        let call = call.arg("--wait").arg("--timeout").arg(format!("{}s", timeout.as_secs()));
        result(&call.output(timeout + COMMAND_TIMEOUT)?.exits_with(&[0, 1])?)
    }

    /// Starts a flow; answers its id at once.
    ///
    /// # Errors
    /// [`Error::Command`] when it is not started.
    pub fn launch(&self, identity: &str, flow: &str, arguments: impl Into<Value>) -> Result<String> {
        let call = Call::new(&["flow", "start", flow]).of_host(self.folder());
        let call = call.arg("--identity").arg(self.identity(identity)?).arg(arguments.into().to_string());
        let answer = call.output(COMMAND_TIMEOUT)?.exits_with(&[0])?;
        let object = answer.object()?;
        object.get("flow_id").and_then(Value::as_str).map(str::to_owned).ok_or_else(|| answer.unexpected())
    }

    /// Everything about a flow, as `maxhost flow show` tells it.
    ///
    /// # Errors
    /// [`Error::Command`] when it is not known (any more).
    pub fn flow(&self, id: &str) -> Result<Value> {
        self.maxhost(&["flow", "show", id])?
            .pop()
            .ok_or_else(|| Error::Answer { command: format!("flow show {id}"), answer: "nothing".to_owned() })
    }

    /// Waits until [`flow`](TestNetwork::flow) shows what the condition wants, and answers that.
    ///
    /// # Errors
    /// [`Error::Timeout`] after the network's flow timeout.
    pub fn wait_until(&self, id: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = std::time::Instant::now() + self.flow_timeout;
        loop {
            let shown = self.flow(id)?;
            if condition(&shown) {
                return Ok(shown);
            }
            if std::time::Instant::now() >= deadline {
                return Err(Error::Timeout {
                    command: format!("flow show {id} (last: {shown})"),
                    seconds: self.flow_timeout.as_secs(),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a flow has ended, and answers its result.
    ///
    /// # Errors
    /// [`Error::Flow`] when it failed.
    pub fn wait(&self, id: &str) -> Result<Value> {
        let shown = self.wait_until(id, |shown| {
            matches!(shown.get("state").and_then(Value::as_str), Some("completed" | "failed" | "killed"))
        })?;
        outcome(&shown)
            .unwrap_or_else(|| Err(Error::Answer { command: format!("flow show {id}"), answer: shown.to_string() }))
    }

    /// Kills a flow as an operator would.
    ///
    /// # Errors
    /// [`Error::Command`] when it is not known or has ended.
    pub fn kill_flow(&self, id: &str) -> Result<()> {
        self.maxhost(&["flow", "kill", id]).map(drop)
    }

    /// Any command of the host program: the JSON objects it prints.
    ///
    /// # Errors
    /// [`Error::Command`] when its exit code is not 0.
    pub fn maxhost(&self, words: &[&str]) -> Result<Vec<Value>> {
        Call::new(words).of_host(self.folder()).output(COMMAND_TIMEOUT)?.exits_with(&[0])?.objects()
    }

    /// Ends the host as a power cut would, in the middle of whatever it does, and starts it again.
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn kill_and_restart(&self) -> Result<()> {
        let mut host = self.host();
        if let Some(running) = host.take() {
            running.kill()?;
        }
        *host = Some(Host::start(self.folder())?);
        Ok(())
    }

    /// Its files: `maxhost.toml`, `identities/` and the others. The log of the host is `host.log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn host(&self) -> MutexGuard<'_, Option<Host>> {
        // A test that panicked while it held the lock leaves at worst no host, which every call reports.
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn identity(&self, name: &str) -> Result<&str> {
        let found = self.identities.iter().find(|(short, full)| short == name || full == name);
        found.map(|(_, full)| full.as_str()).ok_or_else(|| Error::NoSuchIdentity(name.to_owned()))
    }
}

impl Drop for TestNetwork {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if let Some(host) = self.host().as_ref() {
            eprintln!("the host's log:\n{}", host.log());
        }
    }
}

impl Builder {
    /// Adds identities: short names or whole X.500 names.
    #[must_use]
    pub fn identities<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Builder {
        self.identities.extend(names.into_iter().map(Into::into));
        self
    }

    /// Adds a CorDapp: the folder of its crate, or a component. Without any it is the crate under test.
    #[must_use]
    pub fn cordapp(mut self, source: impl Into<PathBuf>) -> Builder {
        self.cordapps.push(source.into());
        self
    }

    /// When suspended flows leave memory, to come back by replay: `never`, `every-wait` or `random:SEED`. Flows do not
    /// notice; a test that runs them in all three ways proves it.
    #[must_use]
    pub fn evict(self, mode: &str) -> Builder {
        self.setting("flows", "evict", &toml_text(mode))
    }

    /// Any key of `maxhost.toml`; the value is TOML.
    #[must_use]
    pub fn setting(mut self, section: &str, key: &str, value: &str) -> Builder {
        self.settings.push((section.to_owned(), key.to_owned(), value.to_owned()));
        self
    }

    /// How long a flow may take, two minutes if not said.
    #[must_use]
    pub fn flow_timeout(mut self, timeout: Duration) -> Builder {
        self.flow_timeout = timeout;
        self
    }

    /// Makes the network and starts its host.
    ///
    /// # Errors
    /// When there is no host program, a CorDapp does not compile, or the host does not start.
    pub fn build(self) -> Result<TestNetwork> {
        let files = tempfile::Builder::new().prefix("maxhost-test-").tempdir().map_err(Error::io("make a folder"))?;
        let (folder, components) = (files.path().join("network"), files.path().join("cordapps"));
        let compiled = self.copy_components(&components)?;
        let identities: Vec<(String, String)> =
            self.identities.iter().map(|name| (name.clone(), full_name(name))).collect();
        let mut call = Call::new(&["init"]).arg(&folder).arg("--cordapps").arg(&components);
        for (_, name) in &identities {
            call = call.arg("--identity").arg(name);
        }
        call.output(COMMAND_TIMEOUT)?.exits_with(&[0])?;
        self.configure(&folder.join("maxhost.toml"))?;
        let code = folder.join(CODE);
        // Where this does not succeed the host compiles, which is all that there is to it.
        let _ = compiled.as_ref().map(|kept| compiled::lend(kept, &code));
        let host = Mutex::new(Some(Host::start(&folder)?));
        let _ = compiled.map(|kept| compiled::keep(&code, &kept));
        Ok(TestNetwork { host, _files: files, folder, identities, flow_timeout: self.flow_timeout })
    }

    /// Puts the components into a folder of their own. Gives where their machine code is kept, if one was built here.
    fn copy_components(&self, target: &Path) -> Result<Option<PathBuf>> {
        fs::create_dir_all(target).map_err(Error::io(format!("make {}", target.display())))?;
        let sources = if self.cordapps.is_empty() { vec![this_crate()?] } else { self.cordapps.clone() };
        let mut kept = None;
        for source in &sources {
            let file = component(source)?;
            if file != *source {
                kept.get_or_insert_with(|| compiled::folder_of(&file));
            }
            let name = file.file_name().unwrap_or(file.as_os_str());
            fs::copy(&file, target.join(name)).map_err(Error::io(format!("copy {}", file.display())))?;
        }
        Ok(kept)
    }

    /// A port of the system's choice, all suspensions checked by a replay beside the flow, and what the test wants.
    fn configure(&self, file: &Path) -> Result<()> {
        let mut text = fs::read_to_string(file).map_err(Error::io(format!("read {}", file.display())))?;
        text = with_key(&text, "rpc", "listen", "\"127.0.0.1:0\"");
        text = with_key(&text, "flows", "shadow_replay", "1.0");
        for (section, key, value) in &self.settings {
            text = with_key(&text, section, key, value);
        }
        fs::write(file, text).map_err(Error::io(format!("write {}", file.display())))
    }
}

fn full_name(name: &str) -> String {
    if name.contains('=') {
        return name.to_owned();
    }
    let place = PLACES.iter().find(|(short, _)| *short == name).map_or(PLACES[0].1, |(_, place)| place);
    format!("O={name}, {place}")
}

fn toml_text(text: &str) -> String {
    // A JSON string is a TOML basic string.
    Value::from(text).to_string()
}

fn result(answer: &Answer) -> Result<Value> {
    // A flow that failed is an object and exit code 1; a command that failed is exit code 1 alone.
    let shown = answer.object().map_err(|_| answer.failure())?;
    outcome(&shown).unwrap_or_else(|| Err(answer.unexpected()))
}

/// The result or error in what a command tells about a flow that has ended.
fn outcome(shown: &Value) -> Option<Result<Value>> {
    if let Some(error) = shown.get("error").filter(|error| !error.is_null()) {
        let failure: Box<FlowFailure> = serde_json::from_value(error.clone()).ok()?;
        let flow_id = shown.get("flow_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        return Some(Err(Error::Flow { flow_id, failure }));
    }
    if shown.get("state").and_then(Value::as_str) == Some("completed") {
        return Some(Ok(shown.get("result").cloned().unwrap_or(Value::Null)));
    }
    None
}

#[cold]
// Only reached by a test that names an identity it did not make: it must fail there and then.
#[allow(clippy::panic)]
fn contradiction(error: &Error) -> ! {
    panic!("{error}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn short_names_become_whole_ones() {
        assert_eq!(full_name("Bob"), "O=Bob, L=New York, C=US");
        assert_eq!(full_name("Dave"), "O=Dave, L=London, C=GB");
        assert_eq!(full_name("O=Eve, L=Rome, C=IT"), "O=Eve, L=Rome, C=IT");
    }

    #[test]
    fn what_a_flow_ended_in_is_told_apart() {
        let completed = json!({"flow_id": "1", "state": "completed", "result": 3});
        assert_eq!(outcome(&completed).unwrap().unwrap(), json!(3));
        let unit = json!({"flow_id": "1", "state": "completed"});
        assert_eq!(outcome(&unit).unwrap().unwrap(), Value::Null);
        let failed =
            json!({"flow_id": "1", "state": "failed", "error": {"kind": "limit", "message": "m", "limit": "cpu"}});
        let error = outcome(&failed).unwrap().unwrap_err();
        assert_eq!(error.flow_failure().unwrap().limit.as_deref(), Some("cpu"));
        assert!(outcome(&json!({"state": "running"})).is_none());
    }
}
