//! What a user types and reads, as snapshots hold it.

use std::process::Command;

use regex::Regex;

use super::{Pipeline, Ran, binary};

/// Commands with what they printed. What differs from one time or place to another stands there as what it is.
pub struct Transcript<'a> {
    pipeline: &'a Pipeline,
    text: String,
}

/// What is written in place of what differs: times, names of runs and artifacts, scores, sizes, what depends on a model's last
/// digit, and lines that only a slow machine prints.
const MASKS: [(&str, &str); 13] = [
    (r"(?m)^.*(, about \d+ \w+ left|a part of a log could not be stored).*\n", ""),
    (r"(?m)^(\S+ \| )?\d{4}-\d\d-\d\dT[\d:.]+Z +", "$1"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:[\d.]+)?( UTC|Z)?", "TIME"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "RUN"),
    (r"\b([0-9a-f]{32}|[0-9a-f]{12})\b", "FINGERPRINT"),
    (r"\b[0-9a-f]{8}\b", "RUN"),
    (r"\b\d+\.\d+\b", "N.N"),
    (r"\b(\d+|N\.N) (s|ms|min|B|KB|MB|GB|KiB|MiB|GiB|attention)\b", "N $2"),
    (r"\bprocess \d+ on \S+", "process N on HOST"),
    (r"(?m)(FINGERPRINT +done) .*$", "$1 ROWS TIME MEMORY"),
    (r"[ \t]+(\n|$)", "$1"),
    (r" {2,}", "  "),
    (r"-{4,}", "---"),
];

impl<'a> Transcript<'a> {
    pub fn of(pipeline: &'a Pipeline) -> Self {
        Self { pipeline, text: String::new() }
    }

    /// Runs `codepair` in the pipeline's folder.
    pub fn codepair(&mut self, arguments: &[&str]) -> Ran {
        let ran = self.pipeline.plain(arguments);
        self.add(arguments, ran)
    }

    /// Runs `codepair` with the pipeline's config.
    pub fn with_config(&mut self, arguments: &[&str]) -> Ran {
        let ran = self.pipeline.codepair(arguments);
        self.add(arguments, ran)
    }

    /// Runs `codepair` where a folder's disk has room for so many bytes; nothing where this system does not let a test make such
    /// a disk.
    pub fn on_a_small_disk(&mut self, folder: &str, bytes: &str, arguments: &[&str]) -> Option<Ran> {
        let folder = self.pipeline.path(folder);
        let temporary = self.pipeline.path("temporary");
        [&folder, &temporary].into_iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
        let script = "mount -t tmpfs -o size=$1 none \"$2\" || exit 77; shift 2; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", bytes]);
        command.arg(&folder).arg(binary("codepair")).args(arguments);
        command.env("TMPDIR", temporary).current_dir(self.pipeline.folder.path());
        let ran = self.pipeline.alone(&mut command).output();
        let ran = ran.map_or_else(|_| Ran { code: 77, out: String::new(), err: String::new() }, Ran::from);
        let is_made = ran.code != 77 && !ran.err.starts_with("unshare:");
        is_made.then(|| self.add(arguments, ran))
    }

    fn add(&mut self, arguments: &[&str], ran: Ran) -> Ran {
        let quote = |word: &&str| match word.contains([' ', '"', '(', '[']) || word.is_empty() {
            true => format!("'{word}'"),
            false => (*word).to_owned(),
        };
        let typed: Vec<String> = arguments.iter().map(quote).collect();
        self.text +=
            &format!("$ codepair {}\n{}{}", typed.join(" "), of_models(arguments, &ran.out), by_step(&ran.err));
        if ran.code != 0 {
            self.text += &format!("[exit {}]\n", ran.code);
        }
        self.text.push('\n');
        ran
    }

    /// All of it, with what differs masked.
    pub fn text(&self) -> String {
        let folder = self.pipeline.folder.path();
        let real = folder.canonicalize().unwrap();
        let places = [real.display().to_string(), folder.display().to_string()];
        let text = places.iter().fold(self.text.clone(), |text, place| text.replace(place, "/FOLDER"));
        let text = text.replace(&std::env::temp_dir().display().to_string(), "/TMP");
        MASKS
            .iter()
            .fold(text, |text, (pattern, what)| Regex::new(pattern).unwrap().replace_all(&text, *what).into_owned())
    }
}

/// What a model answers differs in its last digits, and so may what it finds: how much there is of it is asserted elsewhere.
fn of_models(arguments: &[&str], out: &str) -> String {
    let (first, rest) = out.split_once('\n').unwrap_or((out, ""));
    match arguments.first() {
        Some(&"search") if !rest.is_empty() => format!("{first}\n(what it found)\n"),
        Some(&"generate") if !out.is_empty() => "(what it wrote)\n".to_owned(),
        _ => out.to_owned(),
    }
}

/// The lines of steps that ran side by side, step by step.
fn by_step(err: &str) -> String {
    let mut lines: Vec<&str> = err.split_inclusive('\n').collect();
    let step = |line: &str| line.split_once(" | ").map(|(step, _)| step.to_owned());
    for lines in lines.chunk_by_mut(|one, two| step(one).is_some() == step(two).is_some()) {
        lines.sort_by_key(|line| step(line));
    }
    lines.concat()
}
