//! What a process uses, as Linux tells it (proc(5)).

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::time::Duration;

/// Computing time so far, user and system, of all threads. Granularity 10 ms.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name, in brackets, may have blanks in it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    // SAFETY: asks for a constant.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    Duration::from_micros((ticks(11) + ticks(12)) * 1_000_000 / per_second)
}

/// Resident memory, bytes.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Connections that a process has to each of these ports of loopback.
pub fn connections(pid: u32, ports: &[u16]) -> BTreeMap<u16, usize> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let sockets: HashSet<String> = links
        .filter_map(|link| fs::read_link(link.path()).ok())
        .filter_map(|target| Some(target.to_string_lossy().strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let mut found: BTreeMap<u16, usize> = ports.iter().map(|port| (*port, 0)).collect();
    for line in table.lines().skip(1) {
        // sl local remote state queues timer retransmits uid timeout inode
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [remote, state, inode] = [2, 3, 9].map(|index| fields.get(index).copied().unwrap_or_default());
        let port = remote.split(':').nth(1).and_then(|port| u16::from_str_radix(port, 16).ok());
        if state == "01" && sockets.contains(inode) {
            port.and_then(|port| found.get_mut(&port)).into_iter().for_each(|count| *count += 1);
        }
    }
    found
}
