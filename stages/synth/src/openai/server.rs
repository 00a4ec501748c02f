//! What all generators say that ask a server: where it is, what it may cost, how fast it may go.

use std::time::Duration;

use anyhow::Result;
use codepair_runtime::config_error;

use super::budget::{Budget, Price, Usage};
use super::client::{Client, Settings};
use super::limits::{Allowed, Limits};

/// A server and how to treat it.
pub(crate) struct Server {
    pub(crate) base_url: String,
    pub(crate) model: String,
    pub(crate) api_key_env: String,
    pub(crate) price: Price,
    pub(crate) max_cost: Option<f64>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) allowed: Allowed,
    pub(crate) timeout_seconds: f64,
    pub(crate) retries: u32,
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
            api_key: std::env::var(&self.api_key_env).unwrap_or_default(),
            timeout: Duration::from_secs_f64(self.timeout_seconds),
        })
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits::new(self.allowed)
    }

    /// Whether there is a limit to what may be spent.
    pub(crate) fn has_budget(&self) -> bool {
        self.max_cost.is_some() || self.max_tokens.is_some()
    }

    /// What may still be spent.
    pub(crate) fn budget(&self, spent: Usage) -> Budget {
        Budget::new(self.price, self.max_cost, self.max_tokens, spent)
    }
}

/// Defines the table of a generator that asks a server: fields of its own with their defaults, and those that all have.
macro_rules! asking {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* $visible:vis $field:ident: $kind:ty = $default:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_meta])* $visible $field: $kind,)*
            /// The server's base URL, up to `/v1`.
            base_url: String,
            /// The model's name there.
            model: String,
            /// The environment variable that holds the key; servers without keys need none.
            #[serde(skip_serializing)]
            api_key_env: String,
            /// Dollars a million tokens.
            price: $crate::openai::Price,
            /// Dollars to spend on this generator's rows at most, in all runs together.
            max_cost: Option<f64>,
            /// Tokens to spend likewise, of requests and answers.
            max_tokens: Option<u64>,
            /// Requests under way at once at most; fewer where the server is overloaded.
            #[serde(skip_serializing)]
            concurrency: usize,
            #[serde(skip_serializing)]
            requests_per_minute: Option<u32>,
            #[serde(skip_serializing)]
            tokens_per_minute: Option<u32>,
            #[serde(skip_serializing)]
            timeout_seconds: f64,
            /// Tries after the first for busy or broken answers.
            #[serde(skip_serializing)]
            retries: u32,
            /// Send the requests as batches (`/v1/batches`), which are answered within a day, at OpenAI for half the price.
            #[serde(skip_serializing)]
            batches: bool,
            /// Look so often whether a batch is done.
            #[serde(skip_serializing)]
            poll_seconds: f64,
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    base_url: $crate::openai::OPENAI.to_owned(),
                    model: String::new(),
                    api_key_env: "OPENAI_API_KEY".to_owned(),
                    price: $crate::openai::Price::default(),
                    max_cost: None,
                    max_tokens: None,
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
                    batches: self.batches,
                    poll_seconds: self.poll_seconds,
                }
            }
        }
    };
}
pub(crate) use asking;
