//! A PostgreSQL server of its own, for tests and benchmarks: in a temporary folder, on loopback and a socket in that
//! folder, under a user who is not root, and with every commit on the disk.
//!
//! It ends when it is dropped or when the process ends, however it ends.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The role that owns everything on the server.
pub const ROLE: &str = "maxhost";
/// Its password, for connections over TCP.
pub const PASSWORD: &str = "for-tests-only";
/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs, or can be started again.
#[derive(Debug)]
pub struct Server {
    dir: TempDir,
    bin: PathBuf,
    user: Option<(u32, u32)>,
    port: u16,
    /// Ends the server and removes its folder when this process has ended.
    watchdog: Child,
}

impl Server {
    /// Makes and starts one. `settings`: lines for `postgresql.conf`.
    ///
    /// # Errors
    /// If PostgreSQL 15 or later is not installed, or does not start.
    pub fn start(settings: &str) -> io::Result<Server> {
        let server = Server::prepare()?;
        let password = server.password_file();
        server.run(
            "initdb",
            &["-A", "scram-sha-256", "--auth-local=trust", "-U", ROLE, "-E", "UTF8", "--locale=C", "--no-sync", "-N"]
                .map(str::to_owned)
                .into_iter()
                .chain([format!("--pwfile={}", password.display()), format!("-D{}", server.data().display())])
                .collect::<Vec<_>>(),
        )?;
        server.configure(&format!(
            "fsync = on\nmax_connections = 100\nshared_buffers = 64MB\nmax_wal_size = 256MB\n{settings}"
        ))?;
        server.resume()?;
        Ok(server)
    }

    /// Makes and starts a standby that follows this server under the application name `standby`. It ends like any other.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn standby(&self) -> io::Result<Server> {
        let standby = Server::prepare()?;
        let primary = format!("host={} port={} user={ROLE} application_name=standby", self.dir().display(), self.port);
        let folder = format!("-D{}", standby.data().display());
        standby.run("pg_basebackup", &["-R", "-cfast", "-N", "-d", &primary, &folder].map(str::to_owned))?;
        // What comes later in the file is stronger.
        standby.configure("")?;
        standby.resume()?;
        Ok(standby)
    }

    /// A folder and a port for a server, and what ends it.
    fn prepare() -> io::Result<Server> {
        let bin = programs()?;
        let dir = tempfile::Builder::new().prefix("maxhost-postgres-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let user = unprivileged();
        let home = dir.path().to_owned();
        if let Some((uid, gid)) = user {
            chown(&home, Some(uid), Some(gid))?;
        }
        let password = home.join("password");
        fs::write(&password, format!("{PASSWORD}\n"))?;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;
        if let Some((uid, gid)) = user {
            chown(&password, Some(uid), Some(gid))?;
        }
        let script = format!(
            "cat >/dev/null; cd '{home}' && [ -s data/postmaster.pid ] && kill -CONT $(head -1 data/postmaster.pid); \
             kill -QUIT $(head -1 data/postmaster.pid) 2>/dev/null; sleep 0.3; cd /; rm -rf '{home}'",
            home = home.display()
        );
        let watchdog = Command::new("/bin/sh")
            .args(["-c", &script])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Server { bin, user, port, watchdog, dir })
    }

    /// Where it listens, and these lines of `postgresql.conf`.
    fn configure(&self, settings: &str) -> io::Result<()> {
        let conf = self.data().join("postgresql.conf");
        let mut text = fs::read_to_string(&conf)?;
        text.push_str(&format!(
            "\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n{settings}\n",
            self.port,
            self.dir().display()
        ));
        fs::write(&conf, text)
    }

    /// The folder of the server: its socket, its log and, in `data`, its files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file with the password of [`ROLE`].
    #[must_use]
    pub fn password_file(&self) -> PathBuf {
        self.dir().join("password")
    }

    /// Where it listens on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a database through the socket, which needs no password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_of(ROLE, database)
    }

    /// The address of a database for a role, through the socket.
    #[must_use]
    pub fn url_of(&self, role: &str, database: &str) -> String {
        format!("postgres:///{database}?host={}&port={}&user={role}", self.dir().display(), self.port)
    }

    /// The address of a database over TCP.
    #[must_use]
    pub fn tcp_url(&self, database: &str) -> String {
        format!("postgres://{ROLE}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database.
    ///
    /// # Errors
    /// As the server says.
    pub fn create_database(&self, database: &str) -> io::Result<()> {
        self.sql("postgres", &format!("CREATE DATABASE {database}")).map(drop)
    }

    /// Runs statements and gives what they print, without headings.
    ///
    /// # Errors
    /// As the server says.
    pub fn sql(&self, database: &str, sql: &str) -> io::Result<String> {
        let output = Command::new(self.bin.join("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", ROLE, "-d", database, "-c", sql])
            .arg("-h")
            .arg(self.dir())
            .args(["-p", &self.port.to_string()])
            .output()?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
            false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
        }
    }

    /// Starts a server that was stopped or killed, and waits until it answers.
    ///
    /// # Errors
    /// If it does not start.
    pub fn resume(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A server that was killed may have processes left for a moment, which keep a new one from starting.
            let arguments = [
                "-w".to_owned(),
                "-t60".to_owned(),
                format!("-D{}", self.data().display()),
                format!("-l{}", self.dir().join("log").display()),
                "start".to_owned(),
            ];
            match self.run("pg_ctl", &arguments) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Stops it as an operator does who does not wait for clients.
    ///
    /// # Errors
    /// If it does not stop.
    pub fn stop(&self) -> io::Result<()> {
        self.run(
            "pg_ctl",
            &["-w".to_owned(), "-mfast".to_owned(), format!("-D{}", self.data().display()), "stop".to_owned()],
        )
    }

    /// Kills all processes of the server, which leaves it no time for anything.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self) -> io::Result<()> {
        let pids = self.pids()?;
        signal("-KILL", &pids)
    }

    /// Stops all processes of the server where they are.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self) -> io::Result<()> {
        signal("-STOP", &self.pids()?)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn unpause(&self) -> io::Result<()> {
        signal("-CONT", &self.pids()?)
    }

    /// Its processes: the postmaster first, then its children.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let text = fs::read_to_string(self.data().join("postmaster.pid"))?;
        let postmaster: u32 =
            text.lines().next().and_then(|line| line.trim().parse().ok()).ok_or(ErrorKind::InvalidData)?;
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"))?;
        Ok(std::iter::once(postmaster).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect())
    }

    fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    fn run(&self, program: &str, arguments: &[String]) -> io::Result<()> {
        let mut command = Command::new(self.bin.join(program));
        command.args(arguments).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        let errors = self.dir().join("errors");
        command.stderr(fs::File::create(&errors)?);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        match command.status()?.success() {
            true => Ok(()),
            false => {
                let said = fs::read_to_string(&errors).unwrap_or_default();
                let log = fs::read_to_string(self.dir().join("log")).unwrap_or_default();
                Err(io::Error::other(format!("{program} failed: {said}{log}")))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Without its input the watchdog does its work.
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

fn signal(signal: &str, pids: &[u32]) -> io::Result<()> {
    let pids = pids.iter().map(u32::to_string);
    let status = Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status()?;
    // A child may have ended meanwhile.
    if status.success() || signal == "-KILL" {
        Ok(())
    } else {
        Err(io::Error::other("a process could not be signalled"))
    }
}

/// The folder of the newest server that is installed.
fn programs() -> io::Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let version = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        let bin = entry.path().join("bin");
        if version >= 15 && bin.join("initdb").exists() && bin.join("postgres").exists() {
            found.push((version, bin));
        }
    }
    found.sort();
    let missing =
        || io::Error::new(ErrorKind::NotFound, "PostgreSQL 15 or later is not installed: run deploy/prerequisites.sh");
    found.pop().map(|(_, bin)| bin).ok_or_else(missing)
}

/// Who runs the server if this process is root's: the server refuses root.
fn unprivileged() -> Option<(u32, u32)> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse::<u32>().ok());
    if uid != Some(0) {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["postgres", "nobody"].iter().find_map(|name| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}
