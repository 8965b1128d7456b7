//! A full disk: whoever asks is told, and waiting work goes on when there is room again.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use maxhost_model::Code;
use maxhost_tests::flows::request;
use maxhost_tests::{ALICE, BOB, Network, cli, eventually};
use serde_json::json;

/// A small file system in memory; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(folder: &Path) -> Option<SmallDisk> {
        std::fs::create_dir_all(folder).unwrap();
        let text = |text: &str| CString::new(text).unwrap();
        let (kind, target, size) = (text("tmpfs"), text(folder.to_str().unwrap()), text("size=128m"));
        // SAFETY: all pointers are to strings that outlive the call, which keeps none of them.
        let mounted = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, size.as_ptr().cast()) };
        (mounted == 0).then(|| SmallDisk(folder.to_owned()))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Writes until nothing fits any more.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let target = CString::new(self.0.to_str().unwrap()).unwrap();
        // SAFETY: the pointer is to a string that outlives the call. MNT_DETACH works though files may be open.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_network_that_the_disk_had_no_room_for_is_made_when_there_is_some() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("small")) else {
        eprintln!("skipped: this process may not mount a file system");
        return;
    };
    disk.fill();
    let net = dir.path().join("small/net");
    let words = ["init", net.to_str().unwrap(), "--json"];
    let error = cli::run(&words).fails(5, "disk-full");
    assert!(error["remedy"].as_str().unwrap().contains("goes on where it stopped"), "{error}");
    std::fs::remove_file(disk.filler()).unwrap();
    let made = cli::run(&words).ok().object();
    assert_eq!(made["identities"].as_array().unwrap().len(), 4, "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_the_host_goes_on_when_there_is_room() {
    let network = Network::new().setting("store.url=sqlite:small/maxhost.db");
    let Some(disk) = SmallDisk::mount(&network.path("small")) else {
        eprintln!("skipped: this process may not mount a file system");
        return;
    };
    // Of no concern here, and compiling it anew takes longer than all that follows.
    std::os::unix::fs::symlink(network.path("data/code"), network.path("small/code")).unwrap();
    let mut host = network.run();
    let beat = host.start(BOB, "beat", json!({"beats": 20, "interval_ms": 100})).await;
    assert_eq!(host.run(ALICE, "statics", json!({"times": 1})).await.result()["static"], 1);
    disk.fill();
    let refused = eventually("a refusal", async || {
        match host.try_start(request(ALICE, "statics", &json!({"times": 1}))).await {
            Err(problem) => Ok(problem),
            // The database had room left in its own files.
            Ok(started) => Err(started.flow_id),
        }
    })
    .await;
    assert_eq!(refused.code, Code::DiskFull, "{refused}");
    assert!(host.is_running());
    // It still answers what needs no writing, for as long as this lasts.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(host.status().await.flows["hospital"], 0);
    assert!(host.try_show(&beat).await.is_ok());

    std::fs::remove_file(disk.filler()).unwrap();
    assert_eq!(host.end(&beat).await.result(), json!({"beats": 20}));
    assert_eq!(host.run(ALICE, "ping", json!({"peer": BOB, "count": 2})).await.result(), json!({"rounds": 2}));
    let status = host.until_quiet().await;
    assert_eq!((status.flows["hospital"], status.flows["failed"]), (0, 0));
    host.stop();
}
