//! Running the real binaries in a folder of the test's own.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

mod transcript;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub use transcript::Transcript;

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A binary beside `codepair`; `just test` builds them all first.
pub fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_codepair")).with_file_name(name);
    assert!(path.is_file(), "{} is not built; run: cargo build --release --workspace --bins", path.display());
    path
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }
    /// Asserts the exit code and that the error names all of `words`.
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {self:#?}");
        }
        self
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Short trainings: what they reach is of no account here.
pub const SHORT: [&str; 4] = ["--set", "train.search.epochs=4", "--set", "train.generate.epochs=1"];

/// Questions with the functions that answer them, no two alike.
pub fn own_rows(count: usize) -> String {
    let verbs = ["add", "multiply", "subtract", "compare", "divide", "join", "scale"];
    let things = ["prices", "weights", "lengths", "names", "angles", "colours", "dates", "matrices", "words"];
    let row = |n: usize| {
        let (verb, thing) = (verbs[n % verbs.len()], things[n / verbs.len() % things.len()]);
        serde_json::json!({
            "id": n,
            "question": format!("How do I {verb} two {thing} of the kind {n}?"),
            "answer": format!("def {verb}_{thing}_{n}(first_{thing}, second_{thing}):\n    {verb}ed = {n} + first_{thing}\n    return {verb}ed, second_{thing}\n"),
        })
        .to_string()
    };
    (0..count).map(|n| row(n) + "\n").collect()
}

/// A config, a store and overrides.
pub struct Pipeline {
    pub folder: tempfile::TempDir,
    config: PathBuf,
    sets: Vec<String>,
}

impl Pipeline {
    /// A shipped config, cut down by overrides, with a store in a folder of its own.
    pub fn shipped(config: &str, sets: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        sets.push(format!("store.url=file://{}/store", folder.path().display()));
        Self { config: root().join("configs").join(config), folder, sets }
    }

    /// A config written by the test.
    pub fn written(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("pipeline.toml");
        std::fs::write(&config, format!("name = \"test\"\n[store]\nurl = \"file://store\"\n{text}")).unwrap();
        Self { config, folder, sets: Vec::new() }
    }

    /// A folder with rows of one's own in `rows.jsonl`, and no config.
    pub fn own_rows(count: usize) -> Self {
        let own = Self::written("");
        std::fs::remove_file(&own.config).unwrap();
        own.write("rows.jsonl", own_rows(count));
        own
    }

    /// Uses another store from now on.
    pub fn store_at(&mut self, url: &str) {
        self.sets.push(format!("store.url={url}"));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Runs a binary with the config, the overrides, and further arguments.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Ran {
        self.run_with(&self.path("cache"), name, arguments)
    }

    /// As `run`, with a cache for downloads, and with the key that the test's servers want, and with another one.
    pub fn run_with(&self, cache: &Path, name: &str, arguments: &[&str]) -> Ran {
        // The test's own arguments come last, so that they override.
        let (first, rest) = arguments.split_at(usize::from(name == "codepair"));
        let mut command = Command::new(binary(name));
        command.args(first).arg("--config").arg(&self.config);
        // What asks for runs that there are refuses values that would change nothing.
        let (plans, stores) = match first {
            ["plan" | "run"] => (true, true),
            ["schema" | "config" | "init"] => (false, false),
            _ => (name != "codepair", true),
        };
        for set in self.sets.iter().filter(|set| plans || (stores && set.starts_with("store."))) {
            command.arg("--set").arg(set);
        }
        command.args(rest);
        command
            .env_remove("CODEPAIR_CONFIG")
            .env("CODEPAIR_CACHE", cache)
            .env("CODEPAIR_TEST_KEY", "sk-test")
            .env("CODEPAIR_WRONG_KEY", "sk-wrong")
            .output()
            .unwrap()
            .into()
    }

    /// `codepair` without the config.
    pub fn plain(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(binary("codepair"));
        command.args(arguments).current_dir(self.folder.path());
        self.alone(&mut command).output().unwrap().into()
    }

    /// A command that nothing of this machine's settings changes.
    pub fn alone<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env_remove("CODEPAIR_CONFIG")
            .env_remove("CODEPAIR_LOG_FORMAT")
            .env("CODEPAIR_CACHE", self.path("cache"))
    }

    pub fn codepair(&self, arguments: &[&str]) -> Ran {
        self.run("codepair", arguments)
    }

    /// The rows of a query.
    pub fn sql(&self, query: &str) -> Vec<serde_json::Value> {
        self.codepair(&["sql", "--format", "json", query]).ok().json().as_array().unwrap().clone()
    }

    /// The single number a query gives.
    pub fn number(&self, query: &str) -> f64 {
        let rows = self.sql(query);
        rows[0].as_object().unwrap().values().next().unwrap().as_f64().unwrap_or_else(|| panic!("{rows:?}"))
    }

    /// The digest of each step's outputs, volatile ones left out.
    pub fn digests(&self) -> Vec<(String, String)> {
        let status = self.codepair(&["status", "--json"]).ok().json();
        let steps = status["steps"].as_array().unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        steps.iter().map(|s| (text(&s["step"]), text(&s["manifest"]["digest"]))).collect()
    }

    /// The files of the store under a folder.
    pub fn stored(&self, folder: &str) -> Vec<String> {
        let mut open = vec![self.path("store").join(folder)];
        let mut found = Vec::new();
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { found.push(path.display().to_string()) }
            }
        }
        found.sort();
        found
    }
}
