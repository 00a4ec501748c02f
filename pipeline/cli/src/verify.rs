//! `codepair verify`: reads every file of the newest plan's artifacts again, and compares it with its manifest.

use anyhow::Result;
use codepair_runtime::{ExitStatus, Manifest, Store, config_error};

use crate::arguments::{Arguments, VerifyOptions};
use crate::planner::selects;
use crate::table::{Table, print};

/// What was found wrong, in words.
struct Checked {
    files: u64,
    bytes: u64,
    faults: Vec<String>,
}

/// Checks a step's artifact, or all.
pub(crate) fn verify(arguments: &Arguments, options: &VerifyOptions) -> Result<ExitStatus> {
    let runs = arguments.pipeline.runs(&options.run)?;
    let (plan, store) = (runs.newest()?, runs.store);
    let wanted = |name: &str| options.step.as_ref().is_none_or(|step| selects(step, name));
    let steps: Vec<_> = plan.steps.iter().filter(|step| wanted(&step.name)).collect();
    if steps.is_empty() {
        let known: Vec<&str> = plan.steps.iter().map(|s| s.name.as_str()).collect();
        let step = options.step.as_deref().unwrap_or_default();
        return Err(config_error(format!("there is no step {step}; there are {}", known.join(", "))));
    }
    let mut table = Table::new(&["step", "fingerprint", "files", "MB", "state"]);
    let mut faults = Vec::new();
    for step in steps {
        let (cells, state) = match Manifest::find(&store, &step.name, &step.fingerprint) {
            Ok(None) => ([String::from("-"), String::from("-")], "not there"),
            Ok(Some(manifest)) => {
                let checked = check(&store, &manifest);
                let cells = [checked.files.to_string(), format!("{:.1}", checked.bytes as f64 / 1e6)];
                let state = if checked.faults.is_empty() { "whole" } else { "damaged" };
                faults.extend(checked.faults);
                (cells, state)
            }
            Err(error) => {
                faults.push(format!("{error:#}"));
                ([String::from("-"), String::from("-")], "damaged")
            }
        };
        table.row(&[&step.name, &step.fingerprint[..12], &cells[0], &cells[1], state]);
    }
    print(&table.to_string());
    faults.iter().for_each(|fault| tracing::error!("{fault}"));
    Ok(if faults.is_empty() { ExitStatus::Done } else { ExitStatus::MissingInput })
}

fn check(store: &Store, manifest: &Manifest) -> Checked {
    let mut checked = Checked { files: 0, bytes: 0, faults: Vec::new() };
    for output in &manifest.outputs {
        checked.files += 1;
        checked.bytes += output.bytes;
        checked.faults.extend(manifest.read(store, output).err().map(|error| format!("{error:#}")));
    }
    checked.faults.extend(manifest.check_inputs(store).err().map(|error| format!("{error:#}")));
    checked
}

#[cfg(test)]
mod tests {
    use super::*;
    use codepair_runtime::{Attempt, Published};

    #[test]
    fn every_file_is_read() {
        let store = Store::memory();
        let mut attempt = Attempt::new(&store, "report", "f1");
        for name in ["a", "b", "c"] {
            attempt.add_file("pages", name, name.repeat(5)).unwrap();
        }
        let Published::Ours(manifest) = attempt.publish(|_| {}).unwrap() else { panic!() };
        let checked = check(&store, &manifest);
        assert_eq!((checked.files, checked.bytes, checked.faults.len()), (3, 15, 0));
        store.delete(&[manifest.path(&manifest.outputs[0])]).unwrap();
        store.put(&manifest.path(&manifest.outputs[2]), "ccxcc").unwrap();
        let faults = check(&store, &manifest).faults;
        assert!(faults[0].contains("missing") && faults[1].contains("SHA-256 differs"), "{faults:?}");
    }
}
