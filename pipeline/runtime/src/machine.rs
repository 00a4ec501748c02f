//! What the machine has, and what the process takes of it.

use crate::Config;

/// Worker threads where the config says nothing.
#[must_use]
pub fn threads(stage: &str) -> usize {
    let own = codepair_schemas::stage(stage).and_then(|stage| stage.threads);
    own.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// The most memory that the process had so far; 0 where the system does not say.
#[must_use]
pub fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// Bytes of memory that the machine has, or that the process may use of it.
#[must_use]
pub fn machine_memory_bytes() -> u64 {
    let number = |text: &str| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok();
    let machine = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = machine.lines().find_map(|line| number(line.strip_prefix("MemTotal:")?)).map(|kib| kib * 1024);
    let allowed = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| number(&text));
    machine.into_iter().chain(allowed).min().unwrap_or(4 << 30)
}

/// The machine's name; empty where the system does not say.
#[must_use]
pub fn host() -> String {
    let said = std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    // Of other systems the shell may say it.
    said.unwrap_or_else(|_| std::env::var("HOSTNAME").unwrap_or_default())
}

/// The commit of the checkout that holds the config; `CODEPAIR_GIT_COMMIT` says it where there is no checkout.
pub(crate) fn git_commit(config: &Config) -> Option<String> {
    if let Ok(commit) = std::env::var("CODEPAIR_GIT_COMMIT") {
        return Some(commit);
    }
    let folder = config.path().parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let output = std::process::Command::new("git").arg("-C").arg(folder).args(["rev-parse", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
