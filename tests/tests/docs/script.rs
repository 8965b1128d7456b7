//! Plays the part of a reader: saves the files that a page shows and types the commands that it shows, in order, in one
//! shell, and holds what comes out against what the page says.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use maxhost_tests::Network;

use crate::markdown::{Block, blocks};

/// A first build of a CorDapp compiles its dependencies, and waits while tests of the samples compile theirs in the same folders.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// What cargo makes for tests, for components, and for itself while it makes components: folders of a target folder.
const COMPILED: [&str; 3] = ["debug", "wasm32-wasip2", "release"];
/// In an expected line: any text. On a line of its own: any lines.
const ANYTHING: &str = "…";

/// A command of a page with what the page says comes out.
#[derive(Debug)]
struct Step {
    command: String,
    expected: Vec<String>,
}

/// The shell of a reader, in a folder of its own.
pub struct Reader {
    shell: Child,
    input: ChildStdin,
    output: Receiver<String>,
    folder: tempfile::TempDir,
    commands: usize,
}

impl Reader {
    /// A shell with `maxhost` on its path, in an empty folder. `cordapps` there is the folder of the sample components.
    pub fn new(maxhost: &Path, samples: &Path, scratch: &Path) -> Reader {
        let folder = tempfile::Builder::new().prefix("maxhost-docs-").tempdir().unwrap();
        std::os::unix::fs::symlink(samples, folder.path().join("samples")).unwrap();
        let path = format!("{}:{}", maxhost.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("bash")
            .args(["--norc", "--noprofile"])
            .current_dir(folder.path())
            .env("PATH", path)
            .env("XDG_DATA_HOME", scratch.join("share"))
            .env("NO_COLOR", "1")
            // What a reader builds is thrown away: a third of the bytes, and sooner there.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_INCREMENTAL", "0")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("MAXHOST_CONFIG")
            .env_remove("MAXHOST_ENDPOINT")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = shell.stdin.take().unwrap();
        let lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Reader { shell, input, output, folder, commands: 0 }
    }

    /// Tells the shell something that a page does not: a variable of its surroundings.
    pub fn export(&mut self, variable: &str, value: &str) {
        let (_, exit) = self.ask(&format!("export {variable}='{value}'"));
        assert_eq!(exit, 0, "{variable}={value}");
    }

    /// Where the reader works.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Reads a page: files are saved, commands are typed. Answers how many commands were typed.
    pub fn read(&mut self, page: &str, text: &str, scratch: &Path) -> usize {
        for block in blocks(text) {
            if let Some(file) = block.word("file") {
                self.save(file, &block);
            } else if block.language == "console" {
                for step in steps(&block) {
                    begin_network(&step.command, &self.here());
                    self.step(page, block.line, &step);
                    share_target(&self.here(), scratch);
                }
            }
        }
        self.commands
    }

    /// Where the shell is.
    fn here(&mut self) -> PathBuf {
        PathBuf::from(self.ask("pwd").0.concat())
    }

    fn save(&mut self, file: &str, block: &Block) {
        let path = self.here().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &block.text).unwrap();
    }

    fn step(&mut self, page: &str, line: usize, step: &Step) {
        self.commands += 1;
        let place = format!("{page}, block at line {line}: {}", step.command);
        let (output, exit) = self.ask(&step.command);
        let shown = output.join("\n");
        assert_eq!(exit, 0, "{place}\nexit code {exit}, output:\n{shown}\n{}", self.log());
        if step.command.starts_with("maxhost run") {
            self.wait_for_host(&place);
        }
        if !fits(&step.expected, &output) {
            panic!("{place}\nexpected:\n{}\ngot:\n{shown}", step.expected.join("\n"));
        }
    }

    /// A reader sees the host say that it is ready before typing on.
    fn wait_for_host(&mut self, place: &str) {
        let deadline = Instant::now() + Duration::from_secs(300);
        // Exit code 5: it cannot be reached, or is not ready. Whoever refuses a user who has not logged in is up.
        while self.ask("maxhost status").1 == 5 {
            assert!(Instant::now() < deadline, "{place}\nthe host does not come up\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn log(&mut self) -> String {
        self.ask("cat host.log 2>/dev/null").0.join("\n")
    }

    /// Types a command; its output and exit code.
    fn ask(&mut self, command: &str) -> (Vec<String>, i32) {
        const MARK: &str = "\u{1}done ";
        // Standard input is the script itself, so commands must not read it.
        writeln!(self.input, "{{ {command}\n}} </dev/null 2>&1; exit_code=$?; echo; echo $'\\x01done '$exit_code")
            .unwrap();
        self.input.flush().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        loop {
            let line = self.output.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|error| panic!("{command}: {error}; so far:\n{}", lines.join("\n")));
            if let Some(exit) = line.strip_prefix(MARK) {
                // The line that `echo` ended, or the empty one that it made.
                while lines.last().is_some_and(String::is_empty) {
                    lines.pop();
                }
                return (lines, exit.parse().unwrap());
            }
            lines.push(line);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // The shell and the hosts that it runs in the background are one process group.
        let group = i32::try_from(self.shell.id()).unwrap_or(0);
        if group > 1 {
            // SAFETY: a plain system call; the group is that of a child which was not waited for, so its number is not
            // used again.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        let _ended = self.shell.wait();
    }
}

/// A crate that the reader has made builds where the last run of this test has built it, and takes what it depends on from
/// where the samples have it compiled: the same packages, for the same target and with the same profile. Components are in
/// neither place: the reader finds his own only.
fn share_target(here: &Path, scratch: &Path) {
    let target = here.join("target");
    if !here.join("Cargo.toml").exists() || target.exists() {
        return;
    }
    let (shared, samples) = (scratch.join("target"), scratch.with_file_name("guests"));
    std::fs::create_dir_all(&shared).unwrap();
    for name in COMPILED {
        let (compiled, link) = (samples.join(name), shared.join(name));
        if !link.is_symlink() {
            // An earlier version of this test had folders here.
            let _absent = std::fs::remove_dir_all(&link);
            std::fs::create_dir_all(&compiled).unwrap();
            std::os::unix::fs::symlink(compiled, link).unwrap();
        }
    }
    std::os::unix::fs::symlink(shared, target).unwrap();
}

/// A network of all samples gets their machine code from where other tests have it: it is of the same program and the same
/// components. Others are compiled for the reader.
fn begin_network(command: &str, here: &Path) {
    let folder = command.strip_prefix("maxhost init ").and_then(|rest| rest.strip_suffix(" --cordapps samples"));
    if let Some(folder) = folder {
        Network::new().begin(&here.join(folder));
    }
}

/// The commands of a console block: lines that begin with `$ `, continued by lines that begin with `> `.
fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), expected: Vec::new() });
        } else if let Some(step) = steps.last_mut() {
            match line.strip_prefix("> ") {
                Some(more) if step.expected.is_empty() => {
                    step.command.push('\n');
                    step.command.push_str(more);
                }
                _ => step.expected.push(line.to_owned()),
            }
        }
    }
    steps
}

/// Whether the output is what the page says; a page that says nothing says nothing of it.
pub fn fits(expected: &[String], output: &[String]) -> bool {
    match expected.split_first() {
        None => true,
        Some((first, rest)) if first == ANYTHING => {
            rest.is_empty() || (0..output.len()).any(|from| fits(rest, &output[from..]))
        }
        Some((first, rest)) => match output.split_first() {
            None => false,
            Some((line, others)) => {
                line_fits(first, line) && (!rest.is_empty() || others.is_empty()) && fits(rest, others)
            }
        },
    }
}

fn line_fits(expected: &str, line: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (expected, line) = (plain(expected), plain(line));
    let mut parts = expected.split(ANYTHING);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}
