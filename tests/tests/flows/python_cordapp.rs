//! A CorDapp that was made of Python by componentize-py (`tests/python-cordapp`) is a CorDapp like any other. The one that
//! `docs/python.md` shows is built and run by the tests of the documentation.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use maxhost_tests::{ALICE, Network};
use serde_json::json;

/// The component; `None`, and a word about it, where PyPI cannot be reached.
fn probe() -> Option<&'static Path> {
    static BUILT: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let made = Command::new(root.join("tests/python-cordapp/build.sh")).output().unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        eprint!("{said}");
        Some(root.join("target/python-cordapp/probe.wasm").canonicalize().ok()?).filter(|file| file.is_file())
    });
    BUILT.as_deref()
}

/// A network on which Alice has this CorDapp and no other. It is compiled by the program that installs it first; hosts find
/// the code, and so does the next run of this suite.
fn network(component: &Path) -> Network {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let network = Network::new();
    let (code, kept) = (network.path("data/code"), maxhost_tests::cli::target().join("python-cordapp/code"));
    let turn = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::create_dir_all(&kept).unwrap();
    copy(&kept, &code, "");
    let installed = network.cli(&["cordapp", "install", component.to_str().unwrap()]).ok().object();
    assert_eq!((installed["name"].as_str(), installed["world"].as_str()), (Some("probe"), Some("flows")));
    std::fs::remove_dir_all(&kept).unwrap();
    copy(&code, &kept, installed["hash"].as_str().unwrap());
    drop(turn);
    let manifest = network.path("identities/alice.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let lines = text.lines().map(|line| if line.starts_with("cordapps") { r#"cordapps = ["probe"]"# } else { line });
    std::fs::write(&manifest, lines.collect::<Vec<_>>().join("\n")).unwrap();
    network
}

/// Copies the files of a folder whose names begin so.
fn copy(from: &Path, to: &Path, beginning: &str) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        if file.file_name().to_string_lossy().starts_with(beginning) {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_is_told_the_same_again_however_often_its_flow_is_put_away() {
    let Some(component) = probe() else { return };
    // Put away at each wait, and run again at its end and compared.
    let network = network(component).setting("flows.evict=every-wait");
    let host = network.run();
    let flows = [json!(1), json!(2)].map(|argument| host.run(ALICE, "probe/same_again", argument));
    let [first, second] = futures::future::join_all(flows).await.try_into().unwrap();
    for (index, what) in ["random", "secrets", "uuid"].into_iter().enumerate() {
        let of = |end: &maxhost_tests::End, round: usize| end.result()[round][index].clone();
        assert_ne!(of(&first, 0), of(&second, 0), "{what} is the same in two flows");
        assert_ne!(of(&first, 0), of(&first, 1), "{what} repeats itself");
    }
    // The clock went on by the sleeps.
    let nanoseconds = |round: usize| first.result()[round][4].as_u64().unwrap();
    assert!(nanoseconds(2) - nanoseconds(0) >= 100_000_000, "{:?}", first.result());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_in_python_outlives_the_host() {
    let Some(component) = probe() else { return };
    let network = network(component);
    let host = network.run();
    let flow = host.start(ALICE, "probe/long_pause", json!(3_000)).await;
    let shown = host.until_waits(&flow, "sleep").await;
    let label = shown.flow.unwrap().progress.unwrap();
    host.kill_9();
    let host = network.run();
    let result = host.end(&flow).await.result();
    assert_eq!(label, format!("drew {}", result["number"]), "drawn before the host was killed");
    assert!(result["paused_ms"].as_u64().unwrap() >= 3_000, "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_finds_nothing_outside_of_its_flow() {
    let Some(component) = probe() else { return };
    let network = network(component);
    let host = network.run();
    let told = host.run(ALICE, "probe/outside", json!(null)).await.result();
    let told = told.as_object().unwrap();
    assert_eq!(told.len(), 7);
    for (attempt, answer) in told {
        let answer = answer.as_str().unwrap();
        assert!(answer.ends_with("Error"), "{attempt}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_python_and_its_limits_end_the_flow_alone() {
    let Some(component) = probe() else { return };
    let network = network(component);
    let host = network.run();
    let wrong = host.run(ALICE, "probe/wrong", json!(null)).await.failure();
    assert_eq!(wrong.kind, "unexpected", "{wrong:?}");
    // The interpreter's traceback is in the log, line by line.
    assert!(host.log().contains("KeyError: 'unknown'"), "{}", host.log());
    let caught = host.run(ALICE, "probe/caught", json!(null)).await.failure();
    assert_eq!((caught.kind.as_str(), caught.message.as_str()), ("unexpected", "KeyError: 'unknown'"));
    let much = host.run(ALICE, "probe/eat", json!(100)).await.failure();
    assert_eq!((much.kind.as_str(), much.limit.as_deref()), ("limit", Some("memory")));
    assert_eq!(host.run(ALICE, "probe/eat", json!(10)).await.result(), json!(10));
}
