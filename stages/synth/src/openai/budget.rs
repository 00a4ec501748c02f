//! What may be spent. The worst case of a request is set aside before it is sent, so that what is spent never passes what
//! may be.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// Dollars for a million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Price {
    /// Of the request.
    pub(crate) input: f64,
    /// Of the answer.
    pub(crate) output: f64,
}

/// Tokens of a request and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
}

impl Usage {
    /// What a response says of itself; what it does not say counts as in the worst case.
    pub(crate) fn of_response(response: &str, worst: Self) -> Self {
        let response: Value = serde_json::from_str(response).unwrap_or_default();
        let count = |name: &str| response["usage"][name].as_u64();
        Self {
            input_tokens: count("prompt_tokens").unwrap_or(worst.input_tokens),
            output_tokens: count("completion_tokens").unwrap_or(worst.output_tokens),
        }
    }

    /// A response that says of itself that it took so much.
    pub(crate) fn as_response(self) -> String {
        json!({ "usage": { "prompt_tokens": self.input_tokens, "completion_tokens": self.output_tokens } }).to_string()
    }

    /// The tokens that a response says it took.
    pub(crate) fn said(response: &str) -> Option<u64> {
        let response: Value = serde_json::from_str(response).ok()?;
        let said = &response["usage"];
        Some(said["prompt_tokens"].as_u64()?.saturating_add(said["completion_tokens"].as_u64().unwrap_or(0)))
    }

    /// The most that a payload can cost: a token is a byte at least.
    pub(crate) fn worst(payload: &str, answer_tokens: u32) -> Self {
        Self { input_tokens: payload.len() as u64, output_tokens: u64::from(answer_tokens) }
    }

    pub(crate) fn tokens(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// Dollars.
    pub(crate) fn cost(self, price: Price) -> f64 {
        (self.input_tokens as f64 * price.input + self.output_tokens as f64 * price.output) / 1e6
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_sub(other.input_tokens),
            output_tokens: self.output_tokens.saturating_sub(other.output_tokens),
        }
    }
}

/// Shared by all requests of a generator.
pub(crate) struct Budget {
    price: Price,
    max_cost: Option<f64>,
    max_tokens: Option<u64>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    spent: Usage,
    set_aside: Usage,
    exhausted: bool,
}

impl Budget {
    /// `spent` before this run.
    pub(crate) fn new(price: Price, max_cost: Option<f64>, max_tokens: Option<u64>, spent: Usage) -> Self {
        Self {
            price,
            max_cost,
            max_tokens,
            state: Mutex::new(State { spent, ..State::default() }),
            changed: Notify::new(),
        }
    }

    /// Whether there is anything to keep to.
    pub(crate) fn is_limited(&self) -> bool {
        self.max_cost.is_some() || self.max_tokens.is_some()
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Nothing panics while it holds the lock.
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        work(&mut state)
    }

    /// Sets the worst case of a request aside; false where that is more than may be spent now.
    pub(crate) fn set_aside(&self, worst: Usage) -> bool {
        self.with(|state| {
            let all = state.spent.plus(state.set_aside).plus(worst);
            let fits = self.max_cost.is_none_or(|most| all.cost(self.price) <= most)
                && self.max_tokens.is_none_or(|most| all.tokens() <= most);
            if fits {
                state.set_aside = state.set_aside.plus(worst);
            }
            fits
        })
    }

    /// Sets it aside as soon as it fits: what is set aside for others is mostly more than they take. False where it does not
    /// fit although nothing is set aside any more.
    pub(crate) async fn set_aside_when_it_fits(&self, worst: Usage) -> bool {
        loop {
            let changed = self.changed.notified();
            if self.set_aside(worst) {
                return true;
            }
            if self.with(|state| state.set_aside == Usage::default()) {
                self.exhaust();
                return false;
            }
            changed.await;
        }
    }

    /// A request is held back although nothing else is under way.
    pub(crate) fn exhaust(&self) {
        self.with(|state| state.exhausted = true);
    }

    /// Sets aside what is spent already, though nobody knows yet how much.
    pub(crate) fn owe(&self, worst: Usage) {
        self.with(|state| state.set_aside = state.set_aside.plus(worst));
    }

    /// Sets aside what the ledger counts as spent, for it will become known.
    pub(crate) fn reopen(&self, worst: Usage) {
        self.with(|state| {
            state.spent = state.spent.minus(worst);
            state.set_aside = state.set_aside.plus(worst);
        });
    }

    /// A request is over: what was set aside for it is free again, but for what it cost.
    pub(crate) fn settle(&self, worst: Usage, spent: Usage) {
        self.with(|state| {
            state.set_aside = state.set_aside.minus(worst);
            state.spent = state.spent.plus(spent);
        });
        self.changed.notify_waiters();
    }

    /// Spent so far, earlier runs included.
    pub(crate) fn spent(&self) -> Usage {
        self.with(|state| state.spent)
    }

    /// Whether a request was held back.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.with(|state| state.exhausted)
    }

    /// Dollars spent so far.
    pub(crate) fn cost(&self) -> f64 {
        self.spent().cost(self.price)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn costs_are_counted_in_dollars_a_million() {
        let usage = Usage { input_tokens: 500_000, output_tokens: 250_000 };
        assert!((usage.cost(Price { input: 0.4, output: 1.6 }) - 0.6).abs() < 1e-12);
        let response = r#"{"usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}"#;
        let worst = Usage { input_tokens: 90, output_tokens: 80 };
        assert_eq!(Usage::of_response(response, worst), Usage { input_tokens: 7, output_tokens: 5 });
        let half = r#"{"usage": {"prompt_tokens": 7}}"#;
        assert_eq!(Usage::of_response(half, worst), Usage { input_tokens: 7, output_tokens: 80 });
        assert_eq!((Usage::of_response("{}", worst), Usage::of_response("{", worst)), (worst, worst));
        let most = Usage { input_tokens: u64::MAX, output_tokens: 1 };
        assert_eq!((most.plus(most).input_tokens, most.tokens()), (u64::MAX, u64::MAX));
    }

    #[test]
    fn who_does_not_fit_waits_for_those_under_way() {
        let budget = Budget::new(Price::default(), None, Some(100), Usage::default());
        let worst = Usage { input_tokens: 60, output_tokens: 0 };
        codepair_runtime::block_on(async {
            assert!(budget.set_aside_when_it_fits(worst).await);
            let settling = async {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                budget.settle(worst, Usage { input_tokens: 10, output_tokens: 0 });
            };
            let (fits, ()) = tokio::join!(budget.set_aside_when_it_fits(worst), settling);
            assert!(fits && !budget.is_exhausted());
            budget.settle(worst, worst);
            assert!(!budget.set_aside_when_it_fits(worst).await);
        });
        assert!(budget.is_exhausted());
    }

    proptest! {
        /// However requests come and end, the limit holds, and what was set aside is given back.
        #[test]
        fn spending_never_passes_the_limit(requests in prop::collection::vec((1u64..50, 0u64..50, 0u64..100), 1..60), most in 10u64..800) {
            let budget = Budget::new(Price { input: 1.0, output: 2.0 }, Some(most as f64 / 1e6), None, Usage::default());
            let mut open = Vec::new();
            for (input, output, share) in requests {
                let worst = Usage { input_tokens: input, output_tokens: output };
                if budget.set_aside(worst) {
                    open.push((worst, share));
                }
                if share % 3 == 0 && let Some((worst, share)) = open.pop() {
                    let part = |tokens: u64| tokens * share / 100;
                    budget.settle(worst, Usage { input_tokens: part(worst.input_tokens), output_tokens: part(worst.output_tokens) });
                }
                prop_assert!(budget.cost() <= most as f64 / 1e6 + 1e-12);
            }
            for (worst, _) in open {
                budget.settle(worst, worst);
            }
            prop_assert!(budget.cost() <= most as f64 / 1e6 + 1e-12);
            prop_assert_eq!(budget.with(|state| state.set_aside), Usage::default());
        }
    }
}
