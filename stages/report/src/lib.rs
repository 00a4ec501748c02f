//! Report: one self-contained page with every score, what it was computed from, and how the training went.

mod data;
mod plots;

use anyhow::{Context as _, Result};
use codepair_runtime::{Config, Context, Input, Stage, Step, overrides};
use codepair_schemas::STAGES;
use serde::{Deserialize, Serialize};

const TEMPLATE: &str = include_str!("report.html.jinja");

/// The page that shows the scores.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Report {
    /// The page's heading; the pipeline's name without it.
    pub title: Option<String>,
    /// Side-by-side examples of each model.
    pub examples: usize,
}

impl Default for Report {
    fn default() -> Self {
        Self { title: None, examples: 5 }
    }
}

impl Stage for Report {
    const NAME: &'static str = "report";
    type Config = Self;

    fn steps(config: &Self, whole: &Config) -> Result<Vec<Step>> {
        let value = serde_json::to_value(config)?;
        let changed = overrides(&value, &serde_json::to_value(Self::default())?);
        let mut changed = serde_json::json!({ "report": changed });
        // Which models are of one table is said nowhere else; where folders lie counts nowhere.
        let kept = whole.variations("train").iter().map(|one| {
            let values = one.values.iter().filter(|(key, _)| !key.starts_with("init"));
            serde_json::json!({ "name": one.name, "of": one.of, "values": values.collect::<Vec<_>>() })
        });
        let kept: Vec<serde_json::Value> = kept.collect();
        if !kept.is_empty() {
            changed["variations"] = kept.into();
        }
        Ok(vec![Step {
            config: serde_json::json!({ "report": value }),
            overrides: changed,
            inputs: inputs()?,
            ..Step::default()
        }])
    }

    fn run(context: &mut Context, config: &Self) -> Result<()> {
        let data = data::gather(context, config)?;
        let page = render(&data)?;
        context.attempt.add_file("pages", "report.json", serde_json::to_vec_pretty(&data)?)?;
        context.attempt.add_file("pages", "report.html", page.into_bytes())?;
        // Both hold seconds and bytes of memory.
        context.attempt.mark_volatile("pages");
        Ok(())
    }
}

/// Everything the report reads, of every step that writes it.
fn inputs() -> Result<Vec<Input>> {
    let entry = STAGES.iter().find(|stage| stage.name == Report::NAME).context("report is in the table of stages")?;
    Ok(entry.inputs.iter().map(|dataset| Input::all(*dataset)).collect())
}

fn render(data: &data::Data) -> Result<String> {
    let mut environment = minijinja::Environment::new();
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::Html);
    environment.add_filter("fixed", |value: f64, digits: usize| format!("{value:.digits$}"));
    environment.add_filter("short", |text: String| text.chars().take(12).collect::<String>());
    environment.add_filter("grouped", grouped);
    environment.add_filter("percent", |value: f64| (value * 100.0).round());
    environment.add_template("report.html", TEMPLATE)?;
    Ok(environment.get_template("report.html")?.render(minijinja::value::Serde(data))?)
}

/// 1234567 as 1,234,567.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(super::grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
