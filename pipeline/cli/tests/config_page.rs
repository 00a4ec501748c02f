//! The keys of a config as `codepair config` prints them, and as `docs/config.md` does.
#![allow(clippy::unwrap_used, reason = "a test stops at once")]

mod support;

use support::{Pipeline, root};

const HEAD: &str = "# The keys of a config\n\nMade by `codepair config`; a test holds both equal. `codepair config synth.openai` prints one table.\n\n";

/// Rewritten with `CODEPAIR_WRITE_DOCS=1`.
#[test]
fn the_page_is_what_the_command_prints() {
    let printed = format!("{HEAD}{}", Pipeline::written("").plain(&["config"]).ok().out);
    let page = root().join("docs/config.md");
    if std::env::var_os("CODEPAIR_WRITE_DOCS").is_some() {
        std::fs::write(&page, &printed).unwrap();
    }
    assert_eq!(std::fs::read_to_string(page).unwrap(), printed, "write it anew: CODEPAIR_WRITE_DOCS=1 just test");
    let undocumented: Vec<&str> =
        printed.lines().filter(|line| line.trim_start().starts_with("- ") && line.ends_with("):")).collect();
    assert!(undocumented.is_empty(), "{undocumented:#?}");
}

#[test]
fn one_table_can_be_asked_for() {
    let pipeline = Pipeline::written("");
    let printed = pipeline.plain(&["config", "train"]).ok().out;
    assert!(
        printed.contains("`epochs` (whole number; default `5`)") && printed.contains("[train.NAME.model]"),
        "{printed}"
    );
    assert!(printed.contains("`checkpoint_seconds` (whole number; default `60`)"), "{printed}");
    let printed = pipeline.plain(&["config", "synth.openai"]).ok().out;
    assert!(printed.contains("max_cost") && !printed.contains("range_max"), "{printed}");
    pipeline.plain(&["config", "trian"]).fails(2, &["there is no table trian", "synth.openai", "prepare.tokenizers"]);
    pipeline.plain(&["config", "train", "--set", "train.a.epochs=2"]).fails(2, &["would change nothing"]);
    assert!(pipeline.plain(&["completions", "bash"]).ok().out.contains("codepair__subcmd__search"));
}
