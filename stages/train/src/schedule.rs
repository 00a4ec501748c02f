//! The rate of each step, as a share of `learning_rate`.

use serde::{Deserialize, Serialize};

/// `schedule` of a training; `kind` says which. All rise from 0 over `warmup_steps` first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// It stays.
    Constant {
        /// Steps until the whole rate.
        #[serde(default)]
        warmup_steps: u64,
    },
    /// It falls in a straight line.
    Linear {
        /// Steps until the whole rate.
        #[serde(default)]
        warmup_steps: u64,
        /// The share that is left at the end.
        #[serde(default)]
        end: f64,
    },
    /// It falls along half a cosine (Loshchilov & Hutter, 2017).
    Cosine {
        /// Steps until the whole rate.
        #[serde(default)]
        warmup_steps: u64,
        /// The share that is left at the end.
        #[serde(default)]
        end: f64,
    },
    /// It falls with the root of the step (Vaswani et al., 2017); `learning_rate` is the highest.
    InverseSquareRoot {
        /// Steps until the whole rate.
        #[serde(default = "defaults::warmup_steps")]
        warmup_steps: u64,
    },
    /// It stays, and falls in a straight line over the last part (Hu et al., 2024).
    WarmupStableDecay {
        /// Steps until the whole rate.
        #[serde(default)]
        warmup_steps: u64,
        /// The share of all steps over which it falls.
        #[serde(default = "defaults::decay")]
        decay: f64,
        /// The share that is left at the end.
        #[serde(default)]
        end: f64,
    },
}

mod defaults {
    pub(super) fn warmup_steps() -> u64 {
        400
    }
    pub(super) fn decay() -> f64 {
        0.2
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Constant { warmup_steps: 0 }
    }
}

impl Schedule {
    /// # Errors
    /// A value that cannot be: the key, and why not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let share = |key: &str, value: f64| {
            if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(format!("{key} = {value} must be between 0 and 1")) }
        };
        match self {
            Self::Constant { .. } | Self::InverseSquareRoot { .. } => Ok(()),
            Self::Linear { end, .. } | Self::Cosine { end, .. } => share("end", *end),
            Self::WarmupStableDecay { decay, end, .. } => share("decay", *decay).and_then(|()| share("end", *end)),
        }
    }

    /// Steps until the whole rate.
    pub(crate) fn warmup_steps(&self) -> u64 {
        match self {
            Self::Constant { warmup_steps }
            | Self::Linear { warmup_steps, .. }
            | Self::Cosine { warmup_steps, .. }
            | Self::InverseSquareRoot { warmup_steps }
            | Self::WarmupStableDecay { warmup_steps, .. } => *warmup_steps,
        }
    }

    /// The share of the rate at a step, from 1, of so many.
    pub(crate) fn share(&self, step: u64, steps: u64) -> f64 {
        let warmup = self.warmup_steps();
        if step <= warmup {
            return step as f64 / warmup as f64;
        }
        // From 0 at the end of the warm-up to 1 at the last step.
        let part = |from: u64| ((step - from) as f64 / steps.saturating_sub(from).max(1) as f64).min(1.0);
        match self {
            Self::Constant { .. } => 1.0,
            Self::Linear { end, .. } => 1.0 + (end - 1.0) * part(warmup),
            Self::Cosine { end, .. } => {
                end + (1.0 - end) * f64::midpoint(1.0, (part(warmup) * std::f64::consts::PI).cos())
            }
            Self::InverseSquareRoot { .. } => (warmup.max(1) as f64 / step as f64).sqrt(),
            Self::WarmupStableDecay { decay, end, .. } => {
                let from = (steps as f64 * (1.0 - decay)) as u64;
                if step <= from.max(warmup) { 1.0 } else { 1.0 + (end - 1.0) * part(from.max(warmup)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_their_formulas() {
        let at = |schedule: Schedule, step: u64| (schedule.share(step, 100) * 1e6).round() / 1e6;
        let constant = Schedule::Constant { warmup_steps: 10 };
        assert_eq!([1, 5, 10, 11, 100].map(|step| at(constant, step)), [0.1, 0.5, 1.0, 1.0, 1.0]);
        let linear = Schedule::Linear { warmup_steps: 20, end: 0.1 };
        assert_eq!([10, 20, 60, 100, 120].map(|step| at(linear, step)), [0.5, 1.0, 0.55, 0.1, 0.1]);
        let cosine = Schedule::Cosine { warmup_steps: 0, end: 0.0 };
        assert_eq!([50, 100].map(|step| at(cosine, step)), [0.5, 0.0]);
        let root = Schedule::InverseSquareRoot { warmup_steps: 25 };
        assert_eq!([5, 25, 100].map(|step| at(root, step)), [0.2, 1.0, 0.5]);
        let stable = Schedule::WarmupStableDecay { warmup_steps: 10, decay: 0.4, end: 0.0 };
        assert_eq!([60, 80, 100].map(|step| at(stable, step)), [1.0, 0.5, 0.0]);
    }
}
