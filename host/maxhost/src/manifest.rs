//! Manifests: one file an identity, `identities/*.toml`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use maxhost_flows::options::{CordappRef, HostRules, IdentityLimits, IdentitySpec, NotaryKind};
use maxhost_model::{Code, Problem, X500Name};

use crate::config::cluster::word;
use crate::strict_toml::{self, Entry, Fault};

/// Every key a manifest may have, with its section.
const KEYS: [(&str, &str); 11] = [
    ("", "name"),
    ("", "cordapps"),
    ("", "keys"),
    ("", "notary"),
    ("limits", "flows"),
    ("limits", "memory"),
    ("limits", "memory_per_flow"),
    ("limits", "cpu_per_run"),
    ("placement", "only"),
    ("placement", "prefer"),
    ("placement", "apart"),
];

/// A manifest that cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub struct BadManifest {
    /// The name in it, if that much is right.
    pub name: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

/// Reads the text of a manifest.
///
/// # Errors
/// The first thing that is wrong with it, with its line.
pub fn parse(file: &Path, text: &str) -> Result<IdentitySpec, BadManifest> {
    let mut draft = Draft::default();
    let fault = match strict_toml::entries(text) {
        Ok(entries) => entries.iter().filter_map(|entry| draft.apply(entry).err()).next(),
        Err(fault) => Some(fault),
    };
    let missing = [("name", draft.name.is_none()), ("keys", draft.keys.is_none())];
    let fault = fault.or_else(|| {
        let (key, _) = missing.into_iter().find(|(_, missing)| *missing)?;
        Some(Fault { line: 1, message: format!("the key '{key}' is missing") })
    });
    match (fault, draft.name, draft.keys) {
        (None, Some(name), Some(keys)) => Ok(IdentitySpec {
            name: name.as_str().to_owned(),
            cordapps: draft.cordapps.into(),
            keys: file.parent().unwrap_or(Path::new(".")).join(keys),
            limits: draft.limits,
            notary: draft.notary,
            hosts: draft.hosts,
            manifest: file.to_owned(),
        }),
        (fault, name, _) => {
            let fault = fault.unwrap_or(Fault { line: 1, message: "it is empty".to_owned() });
            let name = name.map(|name| name.as_str().to_owned());
            Err(BadManifest { name, problem: fault.in_file(Code::ManifestInvalid, file) })
        }
    }
}

#[derive(Default)]
struct Draft {
    name: Option<X500Name>,
    cordapps: Vec<CordappRef>,
    keys: Option<String>,
    limits: IdentityLimits,
    notary: Option<NotaryKind>,
    hosts: HostRules,
}

impl Draft {
    fn apply(&mut self, entry: &Entry) -> Result<(), Fault> {
        let value = &entry.value;
        let applied = match (entry.section.as_str(), entry.key.as_str()) {
            ("", "name") => value.text().and_then(|text| {
                self.name = Some(X500Name::parse(&text).map_err(|error| error.to_string())?);
                Ok(())
            }),
            ("", "cordapps") => value.texts().and_then(|texts| {
                self.cordapps = texts.iter().map(|text| cordapp_ref(text)).collect::<Result<_, _>>()?;
                Ok(())
            }),
            ("", "keys") => value.text().map(|text| self.keys = Some(text)),
            ("", "notary") => value.text().and_then(|text| {
                self.notary = Some(notary_kind(&text)?);
                Ok(())
            }),
            ("limits", "flows") => value.count(1, 1_000_000).map(|count| self.limits.flows = count as u32),
            ("limits", "memory") => value.size().and_then(at_least_a_page).map(|bytes| self.limits.memory = bytes),
            ("limits", "memory_per_flow") => {
                value.size().and_then(at_least_a_page).map(|bytes| self.limits.memory_per_flow = bytes)
            }
            ("limits", "cpu_per_run") => {
                value.duration().and_then(at_least_a_moment).map(|time| self.limits.cpu_per_run = time)
            }
            ("placement", "only") => value.texts().and_then(hosts).map(|hosts| self.hosts.only = hosts),
            ("placement", "prefer") => value.texts().and_then(hosts).map(|hosts| self.hosts.prefer = hosts),
            ("placement", "apart") => value.text().and_then(word).map(|group| self.hosts.apart = Some(group.into())),
            ("limits" | "placement", "") => Ok(()),
            (section, key) => {
                let known = KEYS.iter().map(|(section, key)| full(section, key));
                return Err(Fault { line: entry.line, message: strict_toml::unknown(&full(section, key), known) });
            }
        };
        let name = full(&entry.section, &entry.key);
        applied.map_err(|message| Fault { line: entry.line, message: format!("{name}: {message}") })
    }
}

/// Reads names and labels of hosts. An empty list would let nobody run the identity, or mean nothing.
fn hosts(texts: Vec<String>) -> Result<Arc<[Arc<str>]>, String> {
    match texts.len() {
        0 => Err("the list is empty: name hosts or labels, or leave the key out".to_owned()),
        1..=HostRules::MOST_NAMES => texts.into_iter().map(|text| word(text).map(Arc::from)).collect(),
        _ => Err(format!("the list has more than {} names", HostRules::MOST_NAMES)),
    }
}

/// Reads what a notary does.
fn notary_kind(text: &str) -> Result<NotaryKind, String> {
    match text {
        "validating" => Ok(NotaryKind::Validating),
        "non-validating" => Ok(NotaryKind::NonValidating),
        other => Err(format!("a notary is \"validating\" or \"non-validating\", not \"{other}\"")),
    }
}

fn full(section: &str, key: &str) -> String {
    match (section, key) {
        ("", key) => key.to_owned(),
        (section, "") => section.to_owned(),
        (section, key) => format!("{section}.{key}"),
    }
}

fn at_least_a_moment(time: Duration) -> Result<Duration, String> {
    if time < Duration::from_millis(1) { Err("a flow needs at least 1 ms".to_owned()) } else { Ok(time) }
}

fn at_least_a_page(bytes: u64) -> Result<u64, String> {
    if bytes < 64 * 1024 { Err("a flow needs at least 64 KiB".to_owned()) } else { Ok(bytes) }
}

/// Parses `name`, `name@version` or `name#sha256:…`.
///
/// # Errors
/// In words, for whoever wrote it.
pub fn cordapp_ref(text: &str) -> Result<CordappRef, String> {
    let wrong = || format!("'{text}' is not name, name@version or name#sha256:HASH");
    let word = |part: &str| {
        let plain = part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
        (plain && !part.is_empty()).then(|| part.to_owned()).ok_or_else(wrong)
    };
    if let Some((name, hash)) = text.split_once('#') {
        let hash = hash.strip_prefix("sha256:").ok_or_else(wrong)?.to_ascii_lowercase();
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("the hash in '{text}' is not 64 hexadecimal digits"));
        }
        return Ok(CordappRef { name: word(name)?, version: None, hash: Some(hash) });
    }
    if let Some((name, version)) = text.split_once('@') {
        if version.is_empty() || version.contains(char::is_whitespace) {
            return Err(wrong());
        }
        return Ok(CordappRef { name: word(name)?, version: Some(version.to_owned()), hash: None });
    }
    Ok(CordappRef { name: word(text)?, version: None, hash: None })
}

/// The text of a new manifest. `keys` is relative to the manifests' folder.
pub fn template(name: &str, cordapps: &[String], keys: &str, notary: Option<NotaryKind>) -> String {
    let quoted = |text: &str| toml_edit::Value::from(text).to_string();
    let cordapps: Vec<String> = cordapps.iter().map(|cordapp| quoted(cordapp)).collect();
    let notary = match notary {
        None => "",
        Some(NotaryKind::Validating) => "notary   = \"validating\"\n",
        Some(NotaryKind::NonValidating) => "notary   = \"non-validating\"\n",
    };
    format!(
        "name     = {}\ncordapps = [{}]\nkeys     = {}\n{notary}\n\
         # [limits]\n\
         # flows = 500                # running, or suspended with an instance in memory\n\
         # memory = \"1 GiB\"           # of all flows together\n\
         # memory_per_flow = \"64 MiB\"\n\
         # cpu_per_run = \"2 s\"        # between two waits\n\
         # [placement]                # where several hosts share it\n\
         # only = [\"max-1\"]           # hosts, by name or label: no other one runs it\n\
         # prefer = [\"max-1\"]         # one of these, while one has room\n\
         # apart = \"group\"            # not on one host with others of the group\n",
        quoted(name),
        cordapps.join(", "),
        quoted(keys)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::PathBuf;

    fn parse_text(text: &str) -> Result<IdentitySpec, BadManifest> {
        parse(Path::new("/n/identities/alice.toml"), text)
    }

    const ALICE: &str = "name = \"L=London, O=Alice, C=GB\"\nkeys = \"../keys/alice\"\n";

    #[test]
    fn a_manifest_says_who_runs_what_with_which_limits() {
        let hash = "ab".repeat(32);
        let text = format!(
            "{ALICE}cordapps = [\"ping-pong\", \"quotes@1.2\", \"x#sha256:{hash}\"]\n\
             [limits]\nflows = 7\nmemory = \"8 MiB\"\nmemory_per_flow = \"1 MiB\"\ncpu_per_run = \"500 ms\"\n"
        );
        let spec = parse_text(&text).unwrap();
        assert_eq!(spec.name, "O=Alice, L=London, C=GB");
        assert_eq!(spec.keys, PathBuf::from("/n/identities/../keys/alice"));
        let shown: Vec<String> = spec.cordapps.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["ping-pong", "quotes@1.2", &format!("x#sha256:{hash}")]);
        let limits = IdentityLimits {
            flows: 7,
            memory: 8 << 20,
            memory_per_flow: 1 << 20,
            cpu_per_run: Duration::from_millis(500),
        };
        assert_eq!(spec.limits, limits);
        assert_eq!(parse_text(ALICE).unwrap().limits, IdentityLimits::default());
    }

    #[test]
    fn a_manifest_names_hosts_by_name_or_label() {
        let hosts = |text: &str| parse_text(&format!("{ALICE}[placement]\n{text}")).unwrap().hosts;
        let words = |words: &[&str]| words.iter().map(|word| Arc::from(*word)).collect::<Arc<[Arc<str>]>>();
        let rules = hosts("only = [\"max-1\", \"hsm\"]\nprefer = [\"max-1\"]\napart = \"signers\"\n");
        assert_eq!((&rules.only, &rules.prefer), (&words(&["max-1", "hsm"]), &words(&["max-1"])));
        assert_eq!(rules.apart.as_deref(), Some("signers"));
        assert!(hosts("").is_empty() && parse_text(ALICE).unwrap().hosts.is_empty());
        let most = vec!["\"a\""; HostRules::MOST_NAMES].join(",");
        assert_eq!(hosts(&format!("only = [{most}]")).only.len(), HostRules::MOST_NAMES);
        let refused = parse_text(&format!("{ALICE}[placement]\nonly = [{most}, \"b\"]\n")).unwrap_err();
        assert!(refused.problem.message.contains("more than 64 names"), "{}", refused.problem);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig {
            failure_persistence: None,
            ..proptest::prelude::ProptestConfig::with_cases(2_000)
        })]

        #[test]
        fn a_spoiled_manifest_is_read_or_refused_and_the_file_is_named(
            from in 0..300_usize, to in 0..300_usize, text in "[a-z=.\\[\\]\"'#\n \\PC]{0,6}"
        ) {
            let whole = format!("{ALICE}cordapps = [\"ping-pong\"]\n[limits]\nflows = 7\nmemory_per_flow = \"1 MiB\"\n");
            let mut spoiled: Vec<char> = whole.chars().collect();
            let (from, to) = (from.min(to).min(spoiled.len()), from.max(to).min(spoiled.len()));
            spoiled.splice(from..to, text.chars());
            match parse_text(&spoiled.into_iter().collect::<String>()) {
                Ok(spec) => assert!(X500Name::parse(&spec.name).is_ok()),
                Err(bad) => assert!(bad.problem.message.contains("alice.toml"), "{}", bad.problem),
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_the_name_if_it_is_right() {
        for (text, line, word) in [
            (format!("{ALICE}[limits]\nmemory_per_flw = 1\n"), "4", "did you mean 'limits.memory_per_flow'?"),
            (format!("{ALICE}cordapps = [\"Ping Pong\"]\n"), "3", "'Ping Pong' is not name"),
            (format!("{ALICE}cordapps = [\"x#sha256:12\"]\n"), "3", "64 hexadecimal digits"),
            (format!("{ALICE}cordapps = \"x\"\n"), "3", "a list of texts"),
            (format!("{ALICE}notary = \"yes\"\n"), "3", "\"validating\" or \"non-validating\""),
            (format!("{ALICE}[limits]\nflows = 0\n"), "4", "from 1 to"),
            (format!("{ALICE}[limits]\nmemory_per_flow = \"1 B\"\n"), "4", "64 KiB"),
            (format!("{ALICE}[limits]\ncpu_per_run = \"0 s\"\n"), "4", "1 ms"),
            (format!("{ALICE}[placement]\nonly = []\n"), "4", "the list is empty"),
            (format!("{ALICE}[placement]\nprefer = [\"max 1\"]\n"), "4", "a name has up to 128"),
            (format!("{ALICE}[placement]\napart = [\"a\"]\n"), "4", "a text in quotes"),
            (format!("{ALICE}[placement]\nonyl = [\"a\"]\n"), "4", "did you mean 'placement.only'?"),
            (format!("{ALICE}name = \"O=Twice, L=London, C=GB\"\n"), "3", "duplicate"),
        ] {
            let bad = parse_text(&text).unwrap_err();
            assert_eq!(bad.problem.code, Code::ManifestInvalid);
            assert_eq!(bad.problem.details["line"], line, "{text}: {}", bad.problem);
            assert!(bad.problem.message.contains(word), "{text}: {}", bad.problem);
        }
        let bad = parse_text(&format!("{ALICE}extra = 1\n")).unwrap_err();
        assert_eq!(bad.name.as_deref(), Some("O=Alice, L=London, C=GB"));
        let bad = parse_text("keys = \"k\"\nname = \"Alice\"\n").unwrap_err();
        assert_eq!((bad.name, bad.problem.details["line"].as_str()), (None, "2"));
        assert!(parse_text("").unwrap_err().problem.message.contains("'name' is missing"));
        assert!(parse_text("name = \"O=Alice, L=London, C=GB\"").unwrap_err().problem.message.contains("'keys'"));
    }

    #[test]
    fn a_new_manifest_reads_back() {
        let text = template(
            "O=Al'ice, L=London, C=GB",
            &["a".to_owned(), "b@1".to_owned()],
            "../keys/al-ice",
            Some(NotaryKind::Validating),
        );
        let spec = parse_text(&text).unwrap();
        assert_eq!((spec.name.as_str(), spec.cordapps.len()), ("O=Al'ice, L=London, C=GB", 2));
        assert_eq!(spec.notary, Some(NotaryKind::Validating));
        assert_eq!(parse_text(ALICE).unwrap().notary, None);
    }
}
