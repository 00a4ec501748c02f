//! Which run is asked, of all that a pipeline has had.

use anyhow::Result;
use clap::Args;

use crate::plan::find_plan;
use crate::{Config, Plan, Store, advice, config_error, input_error, plans};

/// Which run's artifacts are looked at.
#[derive(Clone, Debug, Default, Args)]
pub struct RunOption {
    /// The run, by the last or first digits of its id; `codepair runs` lists them [default: the newest that has what is asked].
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
}

/// The runs of a pipeline that may be asked: the one that was chosen, or all.
pub struct Runs {
    /// The store that holds them.
    pub store: Store,
    /// The config that names the pipeline.
    pub config: Config,
    /// Newest first.
    ids: Vec<String>,
}

/// The digits of a run's id that tell it from others: the last ones, for the first are its time.
#[must_use]
pub fn short_run(run: &str) -> &str {
    run.len().checked_sub(8).and_then(|at| run.get(at..)).unwrap_or(run)
}

impl Runs {
    /// Those of the config's pipeline in a store.
    ///
    /// # Errors
    /// Exit 2: what was chosen is several. Exit 3: there is none such.
    pub fn new(store: Store, config: Config, chosen: &RunOption) -> Result<Self> {
        let mut ids = plans(&store, config.name())?;
        if let Some(chosen) = &chosen.run {
            ids = choose(ids, chosen)?;
        }
        Ok(Self { store, config, ids })
    }

    /// Their plans, newest first.
    pub fn plans(&self) -> impl Iterator<Item = Result<Plan>> + '_ {
        let is_chosen = self.ids.len() == 1;
        self.ids.iter().filter_map(move |run| match find_plan(&self.store, self.config.name(), run) {
            // Others are there to be asked.
            Err(error) if !is_chosen => {
                tracing::warn!("{error:#}; the run is passed over");
                None
            }
            found => found.transpose(),
        })
    }

    /// The plan of the newest.
    ///
    /// # Errors
    /// Exit 3: it is damaged, or there is none.
    pub fn newest(&self) -> Result<Plan> {
        self.plans().next().unwrap_or_else(|| {
            Err(input_error(format!(
                "the pipeline {:?} has never run in {}; run: codepair run",
                self.config.name(),
                self.store.url()
            )))
        })
    }

    /// The newest that has what is asked, `what` in words, and what `has` found there. Where it is not the newest of all, the
    /// log says which it is.
    ///
    /// # Errors
    /// A plan, or what is asked for, is damaged.
    pub fn newest_with<T>(&self, what: &str, has: impl Fn(&Plan) -> Result<Option<T>>) -> Result<Option<(Plan, T)>> {
        let newest = self.newest()?.run;
        for plan in self.plans() {
            let plan = plan?;
            let Some(found) = has(&plan)? else { continue };
            if plan.run != newest {
                let (newest, run, made) = (short_run(&newest), short_run(&plan.run), plan.created_at);
                tracing::info!(
                    "the newest run, {newest}, has no {what}; this is the run {run} of {made:.0} ({} lists them, --run chooses one)",
                    advice("codepair runs")
                );
            }
            return Ok(Some((plan, found)));
        }
        Ok(None)
    }
}

fn choose(ids: Vec<String>, chosen: &str) -> Result<Vec<String>> {
    let chosen = chosen.trim().to_ascii_lowercase();
    let fits = |run: &&String| !chosen.is_empty() && (run.starts_with(&chosen) || run.ends_with(&chosen));
    let fitting: Vec<String> = ids.iter().filter(fits).cloned().collect();
    let list = |ids: &[String]| ids.iter().take(10).map(|run| short_run(run)).collect::<Vec<_>>().join(", ");
    match fitting.len() {
        1 => Ok(fitting),
        0 => Err(input_error(format!(
            "--run {chosen}: there is no such run; the newest are {}, and codepair runs lists all",
            list(&ids)
        ))),
        _ => Err(config_error(format!("--run {chosen}: several runs have these digits: {}", list(&fitting)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExitStatus;

    #[test]
    fn a_run_is_chosen_by_digits_of_its_id() {
        let ids = || vec!["0199-bbbb1111".to_owned(), "0199-aaaa1111".to_owned()];
        assert_eq!(choose(ids(), "BBBB1111").unwrap(), ["0199-bbbb1111"]);
        assert_eq!(choose(ids(), "0199-a").unwrap(), ["0199-aaaa1111"]);
        let several = choose(ids(), "1111").unwrap_err();
        assert!(several.to_string().contains("bbbb1111, aaaa1111"), "{several}");
        let none = choose(ids(), "").unwrap_err();
        assert_eq!(crate::exit_status(&none), ExitStatus::MissingInput);
        assert_eq!((short_run("0199-aaaa1111"), short_run("é1")), ("aaaa1111", "é1"));
    }
}
