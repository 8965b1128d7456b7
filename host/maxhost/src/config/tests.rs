//! What the configuration takes and refuses.
#![allow(clippy::unwrap_used, clippy::panic)]
use std::time::Duration;

use maxhost_store_postgres::Layout;

use super::keys::KEYS;
use super::*;

fn parse(text: &str) -> Result<Config, Problem> {
    Config::parse(Path::new("/srv/node/maxhost.toml"), text, std::iter::empty(), &[])
}

#[test]
fn documented_defaults_are_the_defaults() {
    let mut settings = Settings::defaults();
    // What is off until it is named has an example instead of a default.
    let off = ["passphrase_file", "cert", "key", "client_ca", "file"];
    for key in KEYS.iter().filter(|key| !off.contains(&key.name) && key.section != "metrics") {
        let entry = &strict_toml::entries(&format!("{} = {}", key.name, key.default)).unwrap()[0];
        (key.set)(&mut settings, &entry.value).unwrap();
    }
    assert_eq!(settings, Settings::defaults());
}

#[test]
fn the_template_is_a_valid_file_with_the_defaults() {
    let config = parse(&template()).unwrap();
    let mut expected = Settings::defaults();
    expected.passphrase_file = Some("keys/passphrase".into());
    assert_eq!(config.settings, expected);
    assert_eq!(config.database(), &Database::File("/srv/node/data/maxhost.db".into()));
    assert_eq!(config.endpoint_file(), Path::new("/srv/node/data/endpoint"));
    parse(&format!("{}\n[flows]\nevict = \"never\"\n", template())).unwrap();
}

#[test]
fn an_installation_whose_components_are_not_compiled_is_told_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::parse(&dir.path().join(FILE_NAME), "", std::iter::empty(), &[]).unwrap();
    assert!(!config.compiles_first(), "there is no folder");
    std::fs::create_dir_all(config.cordapps()).unwrap();
    std::fs::write(config.cordapps().join("readme.txt"), "").unwrap();
    assert!(!config.compiles_first(), "nothing is installed");
    std::fs::write(config.cordapps().join("ping-pong-0.1.0.wasm"), "").unwrap();
    assert!(config.compiles_first());
    std::fs::create_dir_all(config.code()).unwrap();
    assert!(config.compiles_first());
    std::fs::write(config.code().join("some.cwasm"), "").unwrap();
    assert!(!config.compiles_first());
}

#[test]
fn unknown_keys_are_told_with_line_and_nearest_name() {
    let problem = parse("[rpc]\nlisten = \"127.0.0.1:0\"\nlissten = 1\n").unwrap_err();
    assert_eq!(problem.code, Code::ConfigInvalid);
    assert_eq!(problem.details["line"], "3");
    assert!(problem.message.contains("unknown key 'rpc.lissten'; did you mean 'rpc.listen'?"), "{problem}");
    assert!(parse("[flow]\n").unwrap_err().message.contains("did you mean 'flows'?"));
    assert!(parse("listen = 1\n").unwrap_err().message.contains("maxhost.toml:1"));
}

#[test]
fn wrong_values_name_the_key() {
    for (text, word) in [
        ("[flows]\nlinger = 5\n", "flows.linger"),
        ("[flows]\nevict = \"sometimes\"\n", "random:SEED"),
        ("[limits]\ninstances = 0\n", "from 1 to"),
        ("[flows]\nshadow_replay = 1.5\n", "from 0.0 to 1.0"),
        ("[limits]\njournal_bytes = \"64\"\n", "with a unit"),
        ("[store]\nurl = \"postgres://x\"\n", "names no database"),
        ("[store]\nurl = \"postgres://max@db/x\"\n", "sslmode=verify-full"),
        ("[store]\nurl = \"postgres://max:secret@localhost/x\"\n", "store.password_file"),
        ("[store]\nurl = \"mysql://localhost/x\"\n", "postgres://"),
        ("[store]\nlayout = \"both\"\n", "schemas, shared"),
        ("[cordapps]\ndir = \"\"\n", "expected a text"),
        ("[outbox]\nkeep = \"25 h\"\n", "24 h at most"),
        ("[host]\nlabels = [\"a b\"]\n", "a name has up to 128"),
        ("[cluster]\nbalance = \"maybe\"\n", "none of on, off"),
        ("[cluster]\nbalance_interval = \"1 ms\"\n", "every 100 ms"),
    ] {
        let problem = parse(text).unwrap_err();
        assert!(problem.message.contains(word), "{text}: {problem}");
    }
}

#[test]
fn where_to_listen_is_a_host_and_a_port() {
    for good in ["127.0.0.1:0", "[::1]:65535", "localhost:9090"] {
        let config = parse(&format!("[rpc]\nlisten = \"{good}\"\n[metrics]\nlisten = \"{good}\"\n")).unwrap();
        assert_eq!((config.listen(), config.metrics()), (good, Some(good)));
    }
    for bad in ["bogus", "127.0.0.1", "127.0.0.1:", ":80", "127.0.0.1:65536", "127.0.0.1:-1", "http://127.0.0.1:0/"] {
        for section in ["rpc", "metrics"] {
            let problem = parse(&format!("[{section}]\nlisten = \"{bad}\"\n")).unwrap_err();
            assert_eq!(problem.code, Code::ConfigInvalid);
            let told = format!("{section}.listen: '{bad}' is not an address to listen on");
            assert!(problem.message.contains(&told) && problem.message.contains(":2:"), "{problem}");
        }
    }
}

#[test]
fn a_database_may_be_on_a_server() {
    let config = parse("[store]\nurl = \"postgres://max@127.0.0.1/ledger\"\nlayout = \"shared\"\n").unwrap();
    let url = "postgres://max@127.0.0.1/ledger";
    assert_eq!(config.database(), &Database::Server(url.to_owned()));
    assert_eq!(config.data(), Path::new("/srv/node/data"));
    assert_eq!(config.postgres(url).unwrap().layout, Layout::Shared);
    let password = [(PASSWORD_VARIABLE.to_owned(), "secret".to_owned())];
    assert!(Config::parse(Path::new("maxhost.toml"), "", password.into_iter(), &[]).is_ok());
    let problem = parse("[store]\nurl = \"postgres://max:s3cret@localhost/x\"\n").unwrap_err();
    assert!(!problem.to_string().contains("s3cret"), "{problem}");
    let config = parse("[store]\nurl = \"postgres://max@127.0.0.1/x\"\npassword_file = \"none\"\n").unwrap();
    assert_eq!(config.postgres("postgres://max@127.0.0.1/x").unwrap_err().code, Code::FileNotFound);
}

#[test]
fn environment_beats_the_file_and_flags_beat_both() {
    let text = "[flows]\nlinger = \"5 s\"\nidle_close = \"5 s\"\n[limits]\ninstances = 7\n";
    let environment = [("MAXHOST_FLOWS_LINGER", "6 s"), ("MAXHOST_LIMITS_INSTANCES", "8"), ("PATH", "x")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let flags = ["limits.instances=9".to_owned(), "flows.evict=random:42".to_owned()];
    let file = Path::new("maxhost.toml");
    let config = Config::parse(file, text, environment.into_iter(), &flags).unwrap();
    assert_eq!(config.settings.linger, Duration::from_secs(6));
    assert_eq!(config.settings.idle_close, Duration::from_secs(5));
    assert_eq!(config.settings.instances, 9);
    assert_eq!(config.host_options(Passphrase::default()).eviction, Eviction::Random(42));
}

#[test]
fn a_misspelt_variable_or_flag_is_refused() {
    let file = Path::new("maxhost.toml");
    let variable = [("MAXHOST_FLOWS_LINGR".to_owned(), "1 s".to_owned())];
    let problem = Config::parse(file, "", variable.into_iter(), &[]).unwrap_err();
    assert!(problem.message.contains("did you mean MAXHOST_FLOWS_LINGER?"), "{problem}");
    let problem = Config::parse(file, "", std::iter::empty(), &["flows.lingr=1 s".to_owned()]).unwrap_err();
    assert!(problem.message.contains("did you mean 'flows.linger'?"), "{problem}");
    assert!(Config::parse(file, "", std::iter::empty(), &["flows".to_owned()]).is_err());
}

#[test]
fn what_kubernetes_injects_beside_a_service_is_ignored() {
    let parse = |name: &str, value: &str| {
        let variable = [(name.to_owned(), value.to_owned())];
        Config::parse(Path::new("maxhost.toml"), "", variable.into_iter(), &[])
    };
    for (name, value) in [
        ("MAXHOST_RPC_SERVICE_HOST", "10.0.0.1"),
        ("MAXHOST_RPC_SERVICE_PORT", "7000"),
        ("MAXHOST_RPC_SERVICE_PORT_GRPC", "7000"),
        ("MAXHOST_RPC_PORT", "tcp://10.0.0.1:7000"),
        ("MAXHOST_RPC_PORT_7000_TCP", "tcp://10.0.0.1:7000"),
        ("MAXHOST_RPC_PORT_7000_TCP_PROTO", "tcp"),
        ("MAXHOST_RPC_PORT_7000_TCP_PORT", "7000"),
        ("MAXHOST_RPC_PORT_53_UDP_ADDR", "10.0.0.1"),
        ("MAXHOST_STORE_PORT_PORT_5432_TCP_ADDR", "10.0.0.1"),
    ] {
        assert!(parse(name, value).is_ok(), "{name}");
    }
    for (name, value) in [
        ("MAXHOST_RPC_PORT", "7000"),
        ("MAXHOST_RPC_PORT_X_TCP", "x"),
        ("MAXHOST_RPC_PORT_7000_TCP_X", "x"),
        ("MAXHOST_RPC_SERVICE", "x"),
    ] {
        assert!(parse(name, value).is_err(), "{name}");
    }
}

#[test]
fn relative_paths_start_at_the_file() {
    let config = parse("[store]\nurl = \"sqlite:///var/lib/x.db\"\n[keys]\ndir = \"../k\"\n").unwrap();
    assert_eq!(config.database(), &Database::File("/var/lib/x.db".into()));
    assert_eq!(config.keys(), Path::new("/srv/node/../k"));
}

/// A host that shares its identities, with some lines more or other ones.
fn shared(change: impl Fn(&str) -> String) -> Result<Option<cluster::Sharing>, Problem> {
    let text = "roles = [\"flows\", \"rpc\"]\n[host]\nname = \"max-1\"\nslots = 7\n[store]\nurl = \"postgres://max@127.0.0.1/x\"\n\
                [ownership]\nurl = \"zk://127.0.0.1:2181/maxhost\"\n[broker]\nurl = \"amqp://127.0.0.1\"\n";
    let config = parse(&change(text))?;
    assert_eq!(config.host_name(), "max-1");
    config.sharing()
}

#[test]
fn a_host_that_shares_identities_names_what_is_shared() {
    let sharing = shared(str::to_owned).unwrap().unwrap();
    assert_eq!((sharing.slots, sharing.session_timeout), (7, Duration::from_secs(6)));
    assert_eq!(sharing.address.folder, "/maxhost");
    assert_eq!(sharing.broker.address.servers, [("127.0.0.1".to_owned(), 5672)]);
    let alone = parse("").unwrap();
    assert!(alone.sharing().unwrap().is_none() && !alone.host_name().is_empty());
}

#[test]
fn what_does_not_go_together_is_refused() {
    let postgres = "postgres://max@127.0.0.1/x";
    for (from, to, words) in [
        (postgres, "sqlite:data/maxhost.db", "store.url is a file"),
        ("amqp://127.0.0.1", "", "the embedded one is in this process"),
        ("zk://127.0.0.1:2181/maxhost", "", "broker.url: only hosts that share"),
        ("zk://127.0.0.1:2181/maxhost", "zk://127.0.0.1:2181,zk2:2181/m", "zk2:2181 is not on this machine"),
        ("zk://127.0.0.1:2181/maxhost", "zk://127.0.0.1", "it names no folder"),
        ("amqp://127.0.0.1", "amqp://broker", "broker is not on this machine"),
        ("amqp://127.0.0.1", "amqps://broker", "broker.ca go together"),
        ("amqp://127.0.0.1", "amqp://max@127.0.0.1", "user max needs a password"),
        ("amqp://127.0.0.1", "http://127.0.0.1", "neither amqp:// nor amqps://"),
        ("amqp://127.0.0.1\"", "amqp://127.0.0.1\"\nmanagement = \"h1\"", "neither http:// nor https://"),
        (
            "amqp://127.0.0.1\"",
            "amqp://127.0.0.1\"\nmanagement = \"http://h1\"",
            "broker.management: h1 is not on this machine",
        ),
        ("amqp://127.0.0.1\"", "amqp://127.0.0.1\"\nmanagement = \"https://h1\"", "needs broker.ca"),
        ("amqp://127.0.0.1\"", "amqp://127.0.0.1\"\nmanagement = \"http://localhost\"", "broker.url names no user"),
        ("slots = 7", "slots = 0", "from 1 to"),
        ("\"rpc\"]", "\"notary\"]", "'notary' is none of flows, rpc"),
        ("[\"flows\", \"rpc\"]", "[]", "at least one of flows, rpc"),
        ("[broker]", "user = \"max\"\n[broker]", "ownership.user: it needs a password"),
        ("[broker]", "session_timeout = \"10 ms\"\n[broker]", "from 1 s to 120 s"),
        ("[broker]", "cert = \"c.pem\"\n[broker]", "cert and key go together"),
        ("max-1\"\nslots", "max 1\"\nslots", "host.name"),
    ] {
        let problem = shared(|text| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let problem = problem.err().unwrap_or_else(|| panic!("{to} is taken"));
        assert_eq!(problem.code, Code::ConfigInvalid);
        assert!(problem.message.contains(words), "{to}: {problem}");
    }
}

#[test]
fn one_role_alone_shares_identities() {
    let flows = Roles { flows: true, rpc: false };
    let (from, to) = ("[\"flows\", \"rpc\"]", "[\"rpc\"]");
    assert_eq!(shared(|text| text.replace(from, to)).unwrap().unwrap().slots, 0, "it runs no identity");
    assert_eq!(shared(|text| text.replace(from, "[\"flows\"]")).unwrap().unwrap().slots, 7);
    for (name, value, expected) in [
        ("MAXHOST_ROLES", "rpc, flows", Ok(Roles::BOTH)),
        ("MAXHOST_ROLES", "flows", Ok(flows)),
        ("MAXHOST_ROLES", "", Err("at least one")),
        ("MAXHOST_ROLES", "all", Err("'all' is none of")),
    ] {
        let environment = [(name.to_owned(), value.to_owned())].into_iter();
        let parsed = Config::parse(Path::new("/srv/node/maxhost.toml"), "", environment, &[]);
        match (parsed, expected) {
            (Ok(config), Ok(roles)) => assert_eq!(config.roles(), roles),
            (Err(problem), Err(words)) => assert!(problem.message.contains(words), "{problem}"),
            (parsed, _) => panic!("{value}: {:?}", parsed.map(|config| config.roles())),
        }
    }
    // The command line is stronger than the file.
    let text = "roles = [\"rpc\"]\n";
    let file = Path::new("/srv/node/maxhost.toml");
    let config = Config::parse(file, text, std::iter::empty(), &["roles=flows".to_owned()]).unwrap();
    assert_eq!(config.roles(), flows);
    let problem = config.sharing().err().unwrap();
    assert_eq!(problem.code, Code::ConfigInvalid);
    assert!(problem.message.contains("role flows alone") && problem.message.contains("ownership.url"), "{problem}");
}
