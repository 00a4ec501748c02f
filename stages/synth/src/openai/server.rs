//! What all generators say that ask a server: where it is, what it may cost, how fast it may go.

use std::time::Duration;

use anyhow::Result;
use codepair_runtime::{config_error, refuse_credentials};

use super::budget::{Budget, Price, Usage};
use super::client::{Client, Settings};
use super::limits::{Allowed, Limits};

/// A server and how to treat it.
pub(crate) struct Server {
    pub(crate) base_url: String,
    pub(crate) model: String,
    pub(crate) api_key_env: Option<String>,
    pub(crate) price: Price,
    pub(crate) max_cost: Option<f64>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) allowed: Allowed,
    pub(crate) timeout_seconds: f64,
    pub(crate) retries: u32,
    pub(crate) attempts: u32,
    pub(crate) partial: bool,
    pub(crate) batches: bool,
    pub(crate) poll_seconds: f64,
}

/// OpenAI itself.
pub(crate) const OPENAI: &str = "https://api.openai.com/v1";

impl Server {
    /// Errors of the config.
    pub(crate) fn check(&self) -> Result<()> {
        if self.model.is_empty() {
            return Err(config_error("model is needed, such as model = \"gpt-4.1-mini\""));
        }
        if !(self.timeout_seconds > 0.0 && self.timeout_seconds < 1e6) {
            return Err(config_error("timeout_seconds must be above 0"));
        }
        if !(self.poll_seconds > 0.0 && self.poll_seconds < 1e6) {
            return Err(config_error("poll_seconds must be above 0"));
        }
        refuse_credentials(&self.base_url)?;
        if self.attempts == 0 {
            return Err(config_error("attempts must be at least 1"));
        }
        let amounts = [self.price.input, self.price.output, self.max_cost.unwrap_or(0.0)];
        if amounts.iter().any(|amount| !(0.0..f64::INFINITY).contains(amount)) {
            return Err(config_error("price and max_cost must be 0 or more"));
        }
        if [self.allowed.requests_per_minute, self.allowed.tokens_per_minute].contains(&Some(0)) {
            return Err(config_error("requests_per_minute and tokens_per_minute must be above 0"));
        }
        if self.max_cost.is_some() && self.price == Price::default() {
            return Err(config_error(
                "max_cost needs the price of a million tokens: price = { input = 0.4, output = 1.6 }",
            ));
        }
        Ok(())
    }

    /// A client for one of its paths, such as `/chat/completions`.
    pub(crate) fn client(&self, path: &'static str) -> Result<Client> {
        Client::new(Settings {
            base_url: self.base_url.clone(),
            path,
            api_key: self.key()?,
            timeout: Duration::from_secs_f64(self.timeout_seconds),
        })
    }

    /// The variable that holds the key. That of OpenAI's key is meant only where OpenAI is asked: any other server that is to
    /// have it must be said to.
    fn key_variable(&self) -> Option<&str> {
        let is_openai = self.base_url.trim_end_matches('/') == OPENAI;
        self.api_key_env.as_deref().or(is_openai.then_some("OPENAI_API_KEY"))
    }

    fn key(&self) -> Result<String> {
        let Some(variable) = self.key_variable() else { return Ok(String::new()) };
        // A file's last line end is no part of a key.
        let key = std::env::var(variable).unwrap_or_default().trim().to_owned();
        if key.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(config_error(format!(
                "the key in {variable} holds characters that no key has, such as spaces"
            )));
        }
        Ok(key)
    }

    /// That there is a key where one is named, before anything is asked.
    pub(crate) fn check_key(&self) -> Result<()> {
        match self.key_variable() {
            Some(variable) if self.key()?.is_empty() => Err(config_error(format!(
                "{} wants a key, and the environment variable {variable} is not set; api_key_env names another one",
                self.base_url
            ))),
            _ => Ok(()),
        }
    }

    /// What one of so many shards may send; each may send at least something.
    pub(crate) fn limits(&self, shards: u32) -> Limits {
        let share = |all: Option<u32>| all.map(|all| (all / shards).max(1));
        Limits::new(Allowed {
            concurrency: (self.allowed.concurrency / shards as usize).max(1),
            requests_per_minute: share(self.allowed.requests_per_minute),
            tokens_per_minute: share(self.allowed.tokens_per_minute),
        })
    }

    /// Whether there is a limit to what may be spent.
    pub(crate) fn is_limited(&self) -> bool {
        self.max_cost.is_some() || self.max_tokens.is_some()
    }

    /// What one of so many shards may spend: an equal share of what others than the shards left, of which it spent so much by now.
    /// Where others spent in between, a sibling may have spent more than such a share; then the rest is divided.
    pub(crate) fn budget(&self, spent: &Spent) -> Budget {
        let share_of = |most: f64, of: &dyn Fn(Usage) -> f64| {
            let siblings = spent.siblings.iter().map(|usage| of(*usage)).collect();
            share(most - of(spent.before), siblings, spent.shards)
        };
        let max_cost = self.max_cost.map(|most| share_of(most, &|usage| usage.cost(self.price)));
        let max_tokens = self.max_tokens.map(|most| share_of(most as f64, &|usage| usage.tokens() as f64) as u64);
        Budget::new(self.price, max_cost, max_tokens, spent.own)
    }
}

/// What was spent by a generator before this run.
#[derive(Default)]
pub(crate) struct Spent {
    /// By this shard; by everybody, where there are none.
    pub(crate) own: Usage,
    /// By each of the other shards.
    pub(crate) siblings: Vec<Usage>,
    /// By others than these shards.
    pub(crate) before: Usage,
    /// How many shards there are.
    pub(crate) shards: u32,
}

/// An equal share of what is left, where those who spent more than that have theirs.
fn share(mut left: f64, mut siblings: Vec<f64>, shards: u32) -> f64 {
    let mut shards = f64::from(shards);
    siblings.sort_by(|a, b| b.total_cmp(a));
    for spent in siblings {
        if spent > left / shards {
            (left, shards) = (left - spent, shards - 1.0);
        }
    }
    left.max(0.0) / shards
}

/// Defines the table of a generator that asks a server: fields of its own with their defaults, and those that all have.
macro_rules! asking {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* $visible:vis $field:ident: $kind:ty = $default:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_meta])* $visible $field: $kind,)*
            /// The server's base URL, up to `/v1`.
            base_url: String,
            /// The model's name there.
            model: String,
            /// The environment variable that holds the key; servers without keys need none. OpenAI itself gets that in
            /// `OPENAI_API_KEY`, no other server does unless this says so.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            api_key_env: Option<String>,
            /// Dollars a million tokens.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            price: $crate::openai::Price,
            /// Dollars to spend on this generator at most, in all runs together, whatever becomes of its prompt.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            max_cost: Option<f64>,
            /// Tokens to spend likewise, of requests and answers.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            max_tokens: Option<u64>,
            /// How often a request is asked at most whose answer cannot be used, such as one of another form. Each is paid for.
            attempts: u32,
            /// Publish what there is although requests are open, for want of money or because they failed; the next run asks
            /// for the rest. Without it that is an error, and nothing is lost either.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            partial: bool,
            /// Requests under way at once at most; fewer where the server is overloaded.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            concurrency: usize,
            /// What the server allows; so much is sent at most.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            requests_per_minute: Option<u32>,
            /// Likewise, of requests and answers.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            tokens_per_minute: Option<u32>,
            /// How long an answer may take.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            timeout_seconds: f64,
            /// Tries after the first for busy or broken answers.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            retries: u32,
            /// Send the requests as batches (`/v1/batches`), which are answered within a day, at OpenAI for half the price.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            batches: bool,
            /// Look so often whether a batch is done.
            #[serde(skip_serializing_if = "codepair_runtime::is_unrecorded")]
            poll_seconds: f64,
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    base_url: $crate::openai::OPENAI.to_owned(),
                    model: String::new(),
                    api_key_env: None,
                    price: $crate::openai::Price::default(),
                    max_cost: None,
                    max_tokens: None,
                    attempts: 2,
                    partial: false,
                    concurrency: 16,
                    requests_per_minute: None,
                    tokens_per_minute: None,
                    timeout_seconds: 120.0,
                    retries: 8,
                    batches: false,
                    poll_seconds: 30.0,
                }
            }
        }

        impl $name {
            fn server(&self) -> $crate::openai::Server {
                $crate::openai::Server {
                    base_url: self.base_url.clone(),
                    model: self.model.clone(),
                    api_key_env: self.api_key_env.clone(),
                    price: self.price,
                    max_cost: self.max_cost,
                    max_tokens: self.max_tokens,
                    allowed: $crate::openai::Allowed {
                        concurrency: self.concurrency,
                        requests_per_minute: self.requests_per_minute,
                        tokens_per_minute: self.tokens_per_minute,
                    },
                    timeout_seconds: self.timeout_seconds,
                    retries: self.retries,
                    attempts: self.attempts,
                    partial: self.partial,
                    batches: self.batches,
                    poll_seconds: self.poll_seconds,
                }
            }
        }
    };
}
pub(crate) use asking;

#[cfg(test)]
mod tests {
    use super::*;

    fn server(base_url: &str, api_key_env: Option<&str>) -> Server {
        Server {
            base_url: base_url.to_owned(),
            model: "m".to_owned(),
            api_key_env: api_key_env.map(str::to_owned),
            price: Price { input: 1.0, output: 1.0 },
            max_cost: Some(1.0),
            max_tokens: None,
            allowed: Allowed::default(),
            timeout_seconds: 1.0,
            retries: 0,
            attempts: 1,
            partial: false,
            batches: false,
            poll_seconds: 1.0,
        }
    }

    #[test]
    fn shards_share_what_is_left() {
        for (left, siblings, shards, expected) in [
            (1.0, vec![], 1, 1.0),
            (1.0, vec![0.0], 2, 0.5),
            (1.0, vec![0.5], 2, 0.5),
            // Others spent the rest meanwhile.
            (0.5, vec![0.5], 2, 0.0),
            (0.6, vec![0.4, 0.0], 3, 0.1),
            (-0.5, vec![0.1], 2, 0.0),
        ] {
            let found = share(left, siblings.clone(), shards);
            assert!((found - expected).abs() < 1e-12, "{left} {siblings:?} {shards}: {found}");
        }
    }

    #[test]
    fn openais_key_goes_to_openai_alone() {
        assert_eq!(server(OPENAI, None).key_variable(), Some("OPENAI_API_KEY"));
        assert_eq!(server(&format!("{OPENAI}/"), None).key_variable(), Some("OPENAI_API_KEY"));
        for other in ["http://127.0.0.1:1/v1", "https://api.openai.com.example.org/v1"] {
            assert_eq!(server(other, None).key_variable(), None, "{other}");
            assert_eq!(server(other, Some("OPENAI_API_KEY")).key_variable(), Some("OPENAI_API_KEY"));
        }
        let missing = server(OPENAI, Some("CODEPAIR_NO_SUCH_KEY")).check_key().unwrap_err();
        assert!(missing.to_string().contains("CODEPAIR_NO_SUCH_KEY is not set"), "{missing}");
        server("http://127.0.0.1:1/v1", None).check_key().unwrap();
    }

    #[test]
    fn what_cannot_be_is_said_at_once() {
        server(OPENAI, None).check().unwrap();
        for (wrong, words) in [
            (Server { price: Price { input: -1.0, output: 1.0 }, ..server(OPENAI, None) }, "0 or more"),
            (Server { max_cost: Some(f64::NAN), ..server(OPENAI, None) }, "0 or more"),
            (Server { attempts: 0, ..server(OPENAI, None) }, "attempts"),
            (server("http://user:secret@host/v1", None), "name or a password"),
        ] {
            let error = wrong.check().unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("secret"), "{error}");
        }
    }
}
