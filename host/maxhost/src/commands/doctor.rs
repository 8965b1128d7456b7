//! `maxhost doctor`: looks at everything a host needs, changes nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use maxhost_flows::options::{ENVELOPE_BYTES, IdentitySpec};
use maxhost_model::{Code, NodeInfo, Problem, RunId, SecureHash, Signed};
use maxhost_ownership_zookeeper::look;
use maxhost_pki::node_info::verify_node_info;
use maxhost_pki::{KeyVault, NetworkMap, Passphrase, TrustRoot};
use maxhost_store_postgres::PostgresOptions;
use serde_json::{Value, json};

use super::{cordapp, cordapp_build, doctor_host, doctor_manifests};
use crate::config::cluster::{IdentitySource, Sharing};
use crate::config::{Config, Database};
use crate::context::{Context, Outcome};
use crate::units::show_size;
use crate::{foundation, render};

/// Below this a host may soon stop writing.
const LEAST_DISK: u64 = 512 << 20;
/// What the pool of instances wants at its default size.
const ENOUGH_MAPS: u64 = 65_530;
const ENOUGH_FILES: u64 = 4_096;
/// How long the structure of the database is looked at: some hundreds of megabytes.
const DATABASE_TIME: Duration = Duration::from_secs(5);
/// Certificates that end sooner are told.
const EXPIRY: Duration = Duration::from_secs(30 * 24 * 3600);

/// What one look showed.
struct Check {
    check: &'static str,
    ok: bool,
    detail: String,
    remedy: Option<String>,
}

fn fine(check: &'static str, detail: impl Into<String>) -> Check {
    Check { check, ok: true, detail: detail.into(), remedy: None }
}

fn wrong(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { check, ok: false, detail: detail.into(), remedy: Some(remedy.into()) }
}

fn of<T>(check: &'static str, result: Result<T, Problem>, detail: impl FnOnce(&T) -> String) -> Check {
    match result {
        Ok(value) => fine(check, detail(&value)),
        Err(problem) => wrong(check, problem.message, problem.remedy),
    }
}

/// Looks at everything; exit code 1 if something is wrong.
pub fn execute(context: &Context) -> Outcome {
    let config = context.config();
    let mut checks =
        vec![of("config", config.as_ref().map_err(Clone::clone), |config| config.file().display().to_string())];
    if let Ok(config) = &config {
        checks.extend(folders(config));
        checks.push(key_files(config));
        checks.push(data_files(config));
        checks.push(passphrase(config));
        checks.push(network(config));
        let (manifests, specs) = doctor_manifests::look(context, config);
        checks.push(match manifests {
            Ok(detail) => fine("manifests", detail),
            Err(problem) => wrong("manifests", problem.message, problem.remedy),
        });
        checks.push(certificates(config, &specs));
        if config.compiles_first() {
            context.out.note("the installed CorDapps are compiled for this machine first, which may take a while");
        }
        checks.push(cordapps(config));
        checks.push(disk(config));
        checks.extend(database(context, config));
        checks.extend(shared_servers(context, config));
        let looked = doctor_host::look(context, config);
        checks.extend(looked.into_iter().map(|(check, found)| of(check, found, String::clone)));
    }
    checks.push(maps());
    checks.push(open_files());
    checks.push(wasm_target());

    Ok(show(context, &checks, |value| value))
}

/// Looks at the database alone; exit code 1 if something is wrong.
pub fn check_database(context: &Context) -> Outcome {
    let config = context.config()?;
    let checks = database(context, &config);
    // As the other commands of the database say which identity they are about.
    let of_all = |mut value: Value| {
        value["identity"] = Value::Null;
        value
    };
    Ok(show(context, &checks, of_all))
}

fn show(context: &Context, checks: &[Check], with: impl Fn(Value) -> Value) -> u8 {
    let healthy = checks.iter().all(|check| check.ok);
    let value = |check: &Check| {
        with(json!({"check": check.check, "ok": check.ok, "detail": check.detail, "remedy": check.remedy}))
    };
    let values: Vec<Value> = checks.iter().map(value).collect();
    if context.out.is_json() {
        context.out.list(&values, &[], |_| vec![]);
    } else {
        for check in checks {
            let mark = if check.ok { "ok    " } else { "WRONG " };
            context.out.data(&format!("{mark} {:12} {}", check.check, render::printable(&check.detail)));
            if let Some(remedy) = &check.remedy {
                context.out.data(&format!("       {:12} try: {}", "", render::printable(remedy)));
            }
        }
    }
    if healthy {
        return 0;
    }
    let names: Vec<&str> = checks.iter().filter(|check| !check.ok).map(|check| check.check).collect();
    let text = format!("{} of {} checks found something wrong: {}", names.len(), checks.len(), names.join(", "));
    let found = Problem::new(Code::InstallationUnsound, text);
    // People have it line by line already.
    if context.out.is_json() {
        context.out.problem(&found);
    }
    found.class().exit_code()
}

fn folders(config: &Config) -> Vec<Check> {
    let one = |check, path: &Path, needed: &str| {
        if !path.is_dir() {
            return wrong(check, format!("{} is no folder", path.display()), needed.to_owned());
        }
        match tempfile::Builder::new().prefix(".doctor-").tempfile_in(path) {
            Ok(_) => fine(check, path.display().to_string()),
            Err(error) => wrong(
                check,
                format!("{} cannot be written: {error}", path.display()),
                Code::DirectoryUnwritable.remedy(),
            ),
        }
    };
    let data = config.data();
    let data =
        if data.exists() { one("data", &data, "") } else { fine("data", format!("{} will be made", data.display())) };
    vec![
        data,
        match config.identity_source() {
            IdentitySource::Folder => {
                one("identities", &config.identities(), "make the folder, or correct identities.dir")
            }
            IdentitySource::Ownership => fine("identities", "hosts share them by way of the ownership service"),
        },
        one("installed", &config.cordapps(), "make the folder, or correct cordapps.dir"),
    ]
}

/// Nobody but the host's user may read what flows have said: it is in the database and in the broker's queues.
fn data_files(config: &Config) -> Check {
    let data = config.data();
    if !data.exists() {
        return fine("private", format!("{} will be made, for its owner only", data.display()));
    }
    let mut exposed = Vec::new();
    let mut paths = vec![data.clone()];
    while let Some(path) = paths.pop() {
        if is_exposed(&path) {
            exposed.push(path.clone());
        }
        // A link is not followed: what it leads to is not part of this folder.
        if std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            paths.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    match exposed.first() {
        None => fine("private", format!("{} is its owner's only", data.display())),
        Some(first) => wrong(
            "private",
            format!(
                "{} files or folders with what flows say are open to others, the first is {}",
                exposed.len(),
                first.display()
            ),
            format!("chmod -R go= {}; the host does it when it starts, if it owns them", data.display()),
        ),
    }
}

/// Whether others than the owner may do anything with a file or folder.
fn is_exposed(path: &Path) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|metadata| !metadata.is_symlink() && metadata.permissions().mode() & 0o077 != 0)
}

/// Nobody but the host's user may read private keys and the passphrase.
fn key_files(config: &Config) -> Check {
    let mut exposed = Vec::new();
    let mut seen = 0_u64;
    let mut folders = vec![config.keys()];
    while let Some(folder) = folders.pop() {
        if is_exposed(&folder) {
            exposed.push(folder.clone());
        }
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                let remedy = match error.kind() {
                    std::io::ErrorKind::NotFound => Code::FileNotFound.remedy(),
                    _ => Code::KeyUnreadable.remedy(),
                };
                return wrong("keys", format!("{}: {error}", folder.display()), remedy);
            }
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "key") {
                seen += 1;
                if is_exposed(&path) {
                    exposed.push(path);
                }
            }
        }
    }
    if let Some(file) = config.passphrase_file()
        && std::fs::metadata(&file).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    {
        exposed.push(file);
    }
    match exposed.first() {
        None => fine("keys", format!("{seen} sealed keys, readable by their owner only")),
        Some(first) => wrong(
            "keys",
            format!("{} files can be read by others, the first is {}", exposed.len(), first.display()),
            format!("chmod go= {}", first.display()),
        ),
    }
}

fn passphrase(config: &Config) -> Check {
    let unlocked = config.passphrase().and_then(|passphrase| {
        let passphrase = Passphrase::new(passphrase.expose())?;
        Ok(KeyVault::unlock(&config.keys(), &passphrase)?)
    });
    of("passphrase", unlocked, |_| "opens the key vault".to_owned())
}

fn network(config: &Config) -> Check {
    let map = match NetworkMap::load(&config.network()) {
        Ok(map) => map,
        Err(error) => {
            let problem = Problem::from(error);
            return wrong("network", problem.message, problem.remedy);
        }
    };
    if let Some((file, reason)) = map.rejected().first() {
        return wrong("network", format!("{file}: {reason}"), Code::CertificateInvalid.remedy());
    }
    let epoch = map.parameters().parameters().epoch;
    fine("network", format!("{} parties, parameters of epoch {epoch} are signed and valid", map.len()))
}

/// The certificates of the identities here are valid, and will be for a while.
fn certificates(config: &Config, specs: &[IdentitySpec]) -> Check {
    let loaded = TrustRoot::from_pem_file(&config.network().join("root.pem")).map_err(Problem::from);
    let trust = match loaded {
        Ok(trust) => trust,
        Err(problem) => return wrong("certificates", problem.message, problem.remedy),
    };
    let now = SystemTime::now();
    let mut valid = 0_u32;
    for spec in specs {
        let file =
            config.network().join("node-infos").join(format!("nodeInfo-{}", SecureHash::of(spec.name.as_bytes())));
        let Ok(bytes) = std::fs::read(&file) else {
            return wrong(
                "certificates",
                format!("{} has published no node info", spec.name),
                Code::CertificateInvalid.remedy(),
            );
        };
        let verified = maxhost_model::from_cbor::<Signed<NodeInfo>>(&bytes)
            .map_err(|error| Problem::new(Code::CertificateInvalid, format!("{}: {error}", file.display())))
            .and_then(|info| {
                verify_node_info(&info, &trust, now)?;
                verify_node_info(&info, &trust, now + EXPIRY).map_err(|error| {
                    let problem = Problem::from(error);
                    Problem { message: format!("ends within 30 days: {}", problem.message), ..problem }
                })?;
                Ok(())
            });
        if let Err(problem) = verified {
            return wrong("certificates", format!("{}: {}", spec.name, problem.message), problem.remedy);
        }
        valid += 1;
    }
    fine("certificates", format!("{valid} identities have certificates that are valid for 30 days or more"))
}

fn cordapps(config: &Config) -> Check {
    let Ok(entries) = std::fs::read_dir(config.cordapps()) else {
        return wrong("cordapps", "the folder cannot be read", "make the folder, or correct cordapps.dir");
    };
    let mut names = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        if !path.is_file() {
            return wrong("cordapps", format!("{} is no regular file", path.display()), "remove it from the folder");
        }
        match cordapp::inspect_any(&path, Some(&config.code())) {
            Ok((_, found)) => names.push(found.title()),
            Err(problem) => return wrong("cordapps", problem.message, problem.remedy),
        }
    }
    names.sort();
    fine("cordapps", if names.is_empty() { "none are installed".to_owned() } else { names.join(", ") })
}

fn disk(config: &Config) -> Check {
    match free_space(config.root()) {
        None => fine("disk", "the file system does not tell"),
        Some(free) if free < LEAST_DISK => {
            wrong("disk", format!("{} are free", show_size(free)), Code::DiskFull.remedy())
        }
        Some(free) => fine("disk", format!("{} are free", show_size(free))),
    }
}

fn free_space(path: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut figures = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a C string, and `figures` is large enough for what statvfs writes; it is read only if statvfs
    // says that it wrote it.
    let figures = unsafe {
        if libc::statvfs(path.as_ptr(), figures.as_mut_ptr()) != 0 {
            return None;
        }
        figures.assume_init()
    };
    Some(figures.f_bavail.saturating_mul(figures.f_frsize))
}

/// The database is sound, and no flow in it needs a person. A host may be using it.
fn database(context: &Context, config: &Config) -> Vec<Check> {
    match config.database() {
        Database::File(path) => database_file(path),
        Database::Server(_) => match config.databases_on_servers() {
            Ok(databases) => {
                databases.iter().flat_map(|database| database_server(context, &database.options)).collect()
            }
            Err(problem) => vec![wrong("database", problem.message, problem.remedy)],
        },
    }
}

fn database_file(path: &Path) -> Vec<Check> {
    let file = path.display();
    match maxhost_store_sqlite::examine(path, DATABASE_TIME) {
        Ok(None) => vec![fine("database", format!("{file} will be made"))],
        Ok(Some(found)) => {
            let sound = match found.complete {
                true => "is sound".to_owned(),
                false => format!("showed nothing wrong in the {} s it was looked at", DATABASE_TIME.as_secs()),
            };
            let about =
                format!("{file} {sound}; schema version {}, {} flows have not ended", found.version, found.live);
            vec![fine("database", about), hospital(found.hospital)]
        }
        Err(error) => {
            let problem = Problem::from(error);
            vec![wrong("database", problem.message, problem.remedy)]
        }
    }
}

fn database_server(context: &Context, options: &PostgresOptions) -> Vec<Check> {
    let place = options.place();
    let found = context
        .block_on(async { maxhost_store_postgres::examine(options, DATABASE_TIME).await.map_err(Problem::from) });
    let found = match found {
        Ok(found) => found,
        Err(problem) => return vec![wrong("database", problem.message, problem.remedy)],
    };
    if !found.trouble.is_empty() {
        let remedy = "docs/operating.md says what a database server must be like";
        return found.trouble.iter().map(|trouble| wrong("database", format!("{place}: {trouble}"), remedy)).collect();
    }
    if found.version == 0 {
        return vec![fine("database", format!("{place} answers (PostgreSQL {}); tables will be made", found.server))];
    }
    let about = format!(
        "{place} answers (PostgreSQL {}); schema version {}, {} identities, {} flows have not ended",
        found.server, found.version, found.identities, found.live
    );
    vec![fine("database", about), hospital(found.hospital)]
}

/// ZooKeeper and the broker, where identities are shared.
fn shared_servers(context: &Context, config: &Config) -> Vec<Check> {
    let sharing = match config.sharing() {
        Ok(None) => return Vec::new(),
        Ok(Some(sharing)) => sharing,
        Err(problem) => return vec![wrong("sharing", problem.message, problem.remedy)],
    };
    vec![ownership(context, config, &sharing), broker(context, config, &sharing)]
}

fn ownership(context: &Context, config: &Config, sharing: &Sharing) -> Check {
    let options = foundation::ownership_options(config, sharing, RunId(1));
    let found = context
        .block_on(async { look(&options).await.map_err(|error| foundation::of_ownership(sharing, error)) })
        .and_then(|found| Ok((found, NetworkMap::load(&config.network()).map_err(Problem::from)?)));
    let (place, roles) = (&sharing.address, config.roles().names().join(" and "));
    match found {
        Err(problem) => wrong("ownership", problem.message, problem.remedy),
        Ok((None, _)) => {
            fine("ownership", format!("{place} answers; the first host will set the cluster up, this one does {roles}"))
        }
        Ok((Some((cluster, _)), network)) if cluster.id != foundation::cluster_id(&network) => {
            let remedy = "give each network a folder of its own in ownership.url";
            wrong("ownership", format!("{place} is the folder of hosts of another network"), remedy)
        }
        Ok((Some((cluster, hosts)), _)) => {
            let generation = cluster.generation;
            fine(
                "ownership",
                format!("{place} answers; generation {generation}, {hosts} hosts are there; this one does {roles}"),
            )
        }
    }
}

fn broker(context: &Context, config: &Config, sharing: &Sharing) -> Check {
    let looked = context.block_on(async {
        let network = NetworkMap::load(&config.network()).map_err(Problem::from)?;
        let largest = usize::try_from(network.parameters().parameters().max_message_size).unwrap_or(usize::MAX);
        let broker = foundation::open_broker(sharing, largest.saturating_add(ENVELOPE_BYTES)).await?;
        let waiting = broker.waiting().await.map_err(Problem::from);
        broker.close().await;
        waiting
    });
    of("broker", looked, |waiting| {
        format!("answers and keeps what it is given; {} queues wait for somebody", waiting.len())
    })
}

fn hospital(flows: u64) -> Check {
    match flows {
        0 => fine("hospital", "no flow needs a person"),
        flows => wrong(
            "hospital",
            format!("flows that need a person: {flows}"),
            "see why with `maxhost flow list --state hospital`, and docs/operating.md for what to do",
        ),
    }
}

fn maps() -> Check {
    let allowed: Option<u64> =
        std::fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|text| text.trim().parse().ok());
    match allowed {
        None => fine("maps", "the kernel does not tell"),
        Some(maps) if maps < ENOUGH_MAPS => wrong(
            "maps",
            format!("vm.max_map_count is {maps}: few flow instances fit into memory"),
            "sysctl -w vm.max_map_count=1048576",
        ),
        Some(maps) => fine("maps", format!("vm.max_map_count is {maps}")),
    }
}

fn open_files() -> Check {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes the struct it is given, which lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return fine("open files", "the kernel does not tell");
    }
    // The host raises the soft limit to the hard one by itself.
    if limit.rlim_max < ENOUGH_FILES {
        return wrong(
            "open files",
            format!("{} files may be open at once", limit.rlim_max),
            "raise the limit: ulimit -Hn 65536",
        );
    }
    fine("open files", format!("{} files may be open at once", limit.rlim_max))
}

/// Only needed where CorDapps are compiled.
fn wasm_target() -> Check {
    let detail = match cordapp_build::target_installed() {
        Some(true) => "CorDapps can be compiled here",
        Some(false) => "CorDapps cannot be compiled here: rustup target add wasm32-wasip2",
        None => "CorDapps cannot be compiled here: there is no Rust compiler",
    };
    fine("compiler", detail)
}
