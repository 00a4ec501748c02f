//! A signal that comes when the manifest has been created, and before the process ends.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use codepair_runtime::{Config, Context, Request, Stage, Step, Store, run_stage};

/// A stage that writes one page.
struct Page;

impl Stage for Page {
    const NAME: &'static str = "report";
    type Config = std::collections::BTreeMap<String, i64>;

    fn steps(_config: &Self::Config, _whole: &Config) -> Result<Vec<Step>> {
        Ok(vec![Step::default()])
    }

    fn run(context: &mut Context, _config: &Self::Config) -> Result<()> {
        context.attempt.add_file("pages", "a.html", "page")
    }
}

/// A writer of log lines that sends its own process a signal at the first line after publishing, and waits.
#[derive(Clone)]
struct Signalling;

impl Write for Signalling {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if String::from_utf8_lossy(bytes).contains("report done in") {
            Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status()?;
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const STORE: &str = "CODEPAIR_SIGNAL_TEST_STORE";

/// The process that is signalled: this test's own binary, called again.
#[test]
fn child() {
    let Ok(folder) = std::env::var(STORE) else { return };
    tracing_subscriber::fmt().with_writer(|| Signalling).init();
    let store = Store::local(Path::new(&folder)).unwrap();
    let config = Config::parse("name = \"t\"", Path::new("c.toml"), &[]).unwrap();
    run_stage::<Page>(&store, &config, &Request::default()).unwrap();
}

#[test]
fn a_signal_after_the_manifest_takes_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(STORE, folder.path())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let store = Store::local(folder.path()).unwrap();
    let names: Vec<String> = store.list("artifacts").unwrap().into_iter().map(|(path, _)| path).collect();
    assert!(names.iter().any(|name| name.ends_with("manifest.json")), "{names:?}");
    assert!(names.iter().any(|name| name.ends_with("pages/a.html")), "{names:?}");
}
