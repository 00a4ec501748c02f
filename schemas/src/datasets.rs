//! Every dataset a stage writes as Parquet.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// A list of UTF-8 texts.
    Texts,
    /// Little-endian token ids; the width in bytes is in the schema's metadata (`token_bytes`).
    Tokens,
    /// True or false.
    Boolean,
    /// Unsigned, 32 bits.
    Count,
    /// Unsigned, 64 bits.
    Ordinal,
    /// Signed, 64 bits.
    Integer,
    /// A 64-bit float.
    Real,
    /// A list of 32-bit floats.
    Vector,
}

impl Kind {
    /// The Arrow type behind it.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Texts => DataType::List(Arc::new(Field::new("item", DataType::Utf8, false))),
            Self::Tokens => DataType::Binary,
            Self::Boolean => DataType::Boolean,
            Self::Count => DataType::UInt32,
            Self::Ordinal => DataType::UInt64,
            Self::Integer => DataType::Int64,
            Self::Real => DataType::Float64,
            Self::Vector => DataType::List(Arc::new(Field::new("item", DataType::Float32, false))),
        }
    }
}

/// A column: its name, type, and what it holds.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Name, as SQL sees it.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// May hold nulls.
    pub nullable: bool,
    /// One line: what it holds, with its unit.
    pub doc: &'static str,
}

impl Column {
    const fn or_null(mut self) -> Self {
        self.nullable = true;
        self
    }
}

const fn column(name: &'static str, kind: Kind, doc: &'static str) -> Column {
    Column { name, kind, nullable: false, doc }
}
const fn text(name: &'static str, doc: &'static str) -> Column {
    column(name, Kind::Text, doc)
}
const fn texts(name: &'static str, doc: &'static str) -> Column {
    column(name, Kind::Texts, doc)
}
const fn count(name: &'static str, doc: &'static str) -> Column {
    column(name, Kind::Count, doc)
}
const fn ordinal(name: &'static str, doc: &'static str) -> Column {
    column(name, Kind::Ordinal, doc)
}
const fn real(name: &'static str, doc: &'static str) -> Column {
    column(name, Kind::Real, doc)
}

/// A dataset: a folder of Parquet parts in an artifact.
#[derive(Debug)]
pub struct Dataset {
    /// Plural noun; the folder's and the SQL table's name.
    pub name: &'static str,
    /// Raised when a column changes.
    pub version: u32,
    /// What a row is.
    pub doc: &'static str,
    /// Rows are written in this order; never decreasing.
    pub sort_key: &'static [&'static str],
    /// Holds times or other values that differ between equal runs, so its digests are compared by nobody.
    pub volatile: bool,
    /// The columns, in order.
    pub columns: &'static [Column],
}

impl Dataset {
    /// The Arrow schema, without metadata.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        let fields: Vec<Field> = self.columns.iter().map(|c| Field::new(c.name, c.kind.arrow(), c.nullable)).collect();
        Arc::new(Schema::new(fields))
    }
}

/// Looks a dataset up by the name of its folder: `tokens_code` is the `tokens` of the tokenizer `code`.
#[must_use]
pub fn dataset(name: &str) -> Option<&'static Dataset> {
    let family = if name.starts_with("tokens_") { "tokens" } else { name };
    DATASETS.iter().find(|d| d.name == family)
}

const ID: Column = text("id", "identity of the row: a hash of its source, place and content");
const SOURCE: Column = text("source", "name of the source's table in the config");
const ORDINAL: Column = ordinal("ordinal", "position in the source, rejected rows counted");
const GROUP: Column = text("group", "repository, else top-level module, else file: never divided between splits");
const SPLIT: Column = text("split", "train, validation, test, or prompt (few-shot examples)");
const LICENCE: Column = text("licence", "SPDX identifier or the source's own words; empty where it is unknown");
const ORIGIN: Column = text("origin", "the data set or package that the row comes from");
const MODEL: Column = text("model", "name of the model's table in the config");
const PROTOCOL: Column = text("protocol", "which rows, what was read and what written or found");
const BENCHMARK: Column = text("benchmark", "name of the benchmark's table in the config");

/// All datasets, in the order of the pipeline.
pub const DATASETS: &[Dataset] = &[
    Dataset {
        name: "functions",
        version: 2,
        doc: "Functions and methods with the docstring cut out of the code.",
        sort_key: &["source", "ordinal"],
        volatile: false,
        columns: &[
            ID,
            SOURCE,
            ORDINAL,
            text("repo", "repository or package, as the source names it"),
            text("path", "file within the repository"),
            text("name", "qualified name"),
            text("language", "programming language"),
            text("url", "where the function stands, with line numbers"),
            text("code", "source text without the docstring"),
            text("docstring", "the docstring's text without quotes and indentation; empty where there is none"),
            GROUP,
            SPLIT,
            LICENCE,
            ORIGIN,
        ],
    },
    Dataset {
        name: "pairs",
        version: 1,
        doc: "Pairs that come as such: labelled queries and code, sentences and their translations.",
        sort_key: &["source", "ordinal"],
        volatile: false,
        columns: &[
            ID,
            SOURCE,
            ORDINAL,
            text("text", "natural language; of translations the sentence to translate"),
            text("code", "program text; of translations the translated sentence"),
            text("language", "programming language, or the language of the translation"),
            real("label", "1 where the two belong together, 0 where not; null where nobody said so").or_null(),
            text("url", "where it came from"),
            GROUP,
            SPLIT,
            LICENCE,
            ORIGIN,
        ],
    },
    Dataset {
        name: "problems",
        version: 2,
        doc: "Small programming problems with tests, in MBPP's fields.",
        sort_key: &["source", "ordinal"],
        volatile: false,
        columns: &[
            ID,
            SOURCE,
            ORDINAL,
            column("task_id", Kind::Integer, "the problem's number in its source"),
            text("text", "the problem's statement"),
            text("code", "a reference solution, with line feeds only"),
            text("test_setup_code", "code to run before the tests"),
            texts("test_list", "assertions that a right solution passes"),
            texts("challenge_test_list", "harder assertions"),
            GROUP,
            SPLIT,
            LICENCE,
            ORIGIN,
        ],
    },
    Dataset {
        name: "queries",
        version: 1,
        doc: "Queries that people judged answers to; judgments say how.",
        sort_key: &["source", "ordinal"],
        volatile: false,
        columns: &[
            ID,
            SOURCE,
            ORDINAL,
            text("text", "the query"),
            text("context", "the document or project the user was in; empty where there is none"),
            SPLIT,
            LICENCE,
            ORIGIN,
        ],
    },
    Dataset {
        name: "judgments",
        version: 2,
        doc: "How relevant a function is to a query; several people may judge one pair.",
        sort_key: &["source", "ordinal"],
        volatile: false,
        columns: &[
            SOURCE,
            ORDINAL,
            text("query", "the query's text, as in queries"),
            text("language", "programming language of the function"),
            text("url", "the function's url"),
            real("relevance", "larger is better; CodeSearchNet judges from 0 to 3"),
            text("notes", "what the judge wrote"),
            LICENCE,
            ORIGIN,
        ],
    },
    Dataset {
        name: "sources",
        version: 2,
        doc: "What ingest read, a row a source: rows_read is the sum of the counts after it.",
        sort_key: &["source"],
        volatile: false,
        columns: &[
            SOURCE,
            text("kind", "kind of the source"),
            text("digest", "SHA-256 over the source's files in order of relative path"),
            ordinal("files", "files read"),
            ordinal("rows_read", "rows found in them"),
            ordinal("functions", "rows written to functions"),
            ordinal("pairs", "rows written to pairs"),
            ordinal("problems", "rows written to problems"),
            ordinal("queries", "rows written to queries"),
            ordinal("judgments", "rows written to judgments"),
            ordinal("rejected", "rows written to rejected"),
        ],
    },
    Dataset {
        name: "rejected",
        version: 1,
        doc: "Rows that a stage left out, with the reason.",
        sort_key: &["stage", "source", "ordinal"],
        volatile: false,
        columns: &[
            text("stage", "the stage that left it out"),
            SOURCE,
            ORDINAL,
            text("id", "the row's id, or its file and line where it has none yet"),
            text("reason", "a short name, to group by"),
            text("detail", "what exactly was wrong, or what it collided with"),
        ],
    },
    Dataset {
        name: "synthetic_pairs",
        version: 3,
        doc: "Made pairs of text and code: positives that mean the same as their parent, negatives that do not.",
        sort_key: &["generator", "ordinal"],
        volatile: false,
        columns: &[
            ID,
            text("generator", "name of the generator's table in the config"),
            ORDINAL,
            text("kind", "positive or negative"),
            text("edit", "how it was made: the edits' names, nearest, or the prompt's name"),
            text("parent_id", "id of the function or problem it was made from"),
            text("parent_dataset", "functions or problems"),
            SOURCE,
            text("text", "natural language"),
            text("code", "program text"),
            text("language", "programming language"),
            GROUP,
            SPLIT,
            text("request", "hash of the API request that made it").or_null(),
            text("model", "name of the model that was asked").or_null(),
            text("prompt", "digest of the prompt and few-shot files").or_null(),
            text("parameters", "of sampling, as JSON").or_null(),
            column("seed", Kind::Integer, "the seed it was made with").or_null(),
        ],
    },
    Dataset {
        name: "embeddings",
        version: 1,
        doc: "Vectors of texts and codes, from a server or from a pinned model.",
        sort_key: &["generator", "ordinal"],
        volatile: false,
        columns: &[
            text("id", "of the row that was embedded"),
            text("generator", "name of the generator's table in the config"),
            ORDINAL,
            text("dataset", "functions, problems or queries"),
            text("field", "text or code"),
            text("model", "name of the model"),
            column("vector", Kind::Vector, "its vector, as long as the model makes it"),
            text("request", "hash of the API request that made it").or_null(),
        ],
    },
    Dataset {
        name: "requests",
        version: 2,
        doc: "The API requests that synth used, a snapshot of the ledger.",
        sort_key: &["request", "attempt"],
        volatile: false,
        columns: &[
            text("request", "SHA-256 of endpoint and payload as it is asked first"),
            count("attempt", "0; one more each time it was asked again, for an answer that could not be used"),
            text("generator", "name of the generator's table in the config"),
            text("endpoint", "base URL and path"),
            text("payload", "the request's body, JSON"),
            count("status", "HTTP status of the answer"),
            text("response", "the answer's body as it came; bytes that are no UTF-8 replaced"),
            text("sending", "which sending was answered, as the ledger numbers them"),
        ],
    },
    Dataset {
        name: "examples",
        version: 2,
        doc: "Pairs that survived deduplication and decontamination.",
        sort_key: &["ordinal"],
        volatile: false,
        columns: &[
            ID,
            ordinal("ordinal", "position among all candidates, rejected ones counted"),
            SOURCE,
            text("dataset", "functions, problems, pairs or synthetic_pairs"),
            text("kind", "original, positive or negative"),
            text("parent_id", "for synthetic pairs the id of the row they were made from").or_null(),
            text("name", "qualified name, or the edit's"),
            text("url", "where it came from"),
            text("repo", "repository or package; empty where there is none"),
            text("path", "path within the repository; empty where there is none"),
            text("language", "programming language, or the target's of plain translation"),
            text("text", "natural language, normalised"),
            text("code", "program text, normalised"),
            GROUP,
            SPLIT,
            text("licence", "as its source says; of synthetic pairs that of the row that parent_id names"),
            text("origin", "as its source says; of synthetic pairs that of the row that parent_id names"),
        ],
    },
    Dataset {
        name: "duplicates",
        version: 1,
        doc: "Why a row counts as a duplicate: the verified edge that joins it to its cluster, and the row that was kept.",
        sort_key: &["ordinal"],
        volatile: false,
        columns: &[
            text("id", "the removed row"),
            ordinal("ordinal", "its position among all candidates"),
            text("kind", "exact, near or structural"),
            text("neighbour_id", "the row of the same cluster that the verified edge leads to"),
            real("jaccard", "Jaccard similarity of the two rows' 5-token shingles; 1 for exact duplicates"),
            text("kept_id", "the row of the cluster that was kept"),
        ],
    },
    Dataset {
        name: "tokens",
        version: 2,
        doc: "Token ids of the examples, one folder a tokenizer (tokens_NAME); detokenize('NAME', column) reads them, tokenize('NAME', text) makes them.",
        sort_key: &["ordinal"],
        volatile: false,
        columns: &[
            ID,
            ordinal("ordinal", "position among all candidates, as in examples"),
            SOURCE,
            text("kind", "original, positive or negative"),
            text("name", "qualified name, or the edit's"),
            text("parent_id", "for synthetic pairs the id of the row they were made from").or_null(),
            SPLIT,
            column(
                "name_tokens",
                Kind::Tokens,
                "tokens of an original's name; null where this tokenizer does not read it",
            )
            .or_null(),
            count("name_length", "tokens in name_tokens"),
            column("text", Kind::Tokens, "tokens of the text; null where this tokenizer does not read it").or_null(),
            count("text_length", "tokens in text"),
            column("code", Kind::Tokens, "tokens of the code; null where this tokenizer does not read it").or_null(),
            count("code_length", "tokens in code"),
        ],
    },
    Dataset {
        name: "training_steps",
        version: 3,
        doc: "The training's course: a row every few steps, and one for each validation.",
        sort_key: &["model", "step"],
        volatile: true,
        columns: &[
            MODEL,
            ordinal("step", "optimizer steps so far"),
            count("epoch", "epoch, from 1"),
            SPLIT,
            real("loss", "mean loss since the last row: nats a token (generation) or a pair (search)"),
            real("learning_rate", "learning rate"),
            real("gradient_norm", "global norm before clipping").or_null(),
            real("tokens_per_second", "source and target tokens a second, pads left out").or_null(),
            real("bits_per_byte", "of a generator's targets, where the loss is their likelihood alone").or_null(),
            real("score", "of a validation, where the best epoch is chosen by a metric").or_null(),
            ordinal("skipped", "steps so far whose gradients were no numbers"),
            ordinal("memory_bytes", "the most memory the process had so far"),
            real("elapsed_seconds", "seconds of training, earlier attempts included"),
            real("seconds_left", "until the last epoch, at the pace so far"),
            ordinal("parameters", "trainable parameters of the model"),
        ],
    },
    Dataset {
        name: "scores",
        version: 2,
        doc: "Scores, long: one row a benchmark, model, decoding, metric and bucket of input length.",
        sort_key: &["benchmark", "model", "decoding", "metric", "bucket"],
        volatile: false,
        columns: &[
            BENCHMARK,
            MODEL,
            PROTOCOL,
            text("task", "generation or search"),
            text("decoding", "greedy, beam or exact"),
            text("metric", "name of the metric"),
            text("bucket", "all, or a range of source tokens such as 9-16"),
            real("value", "the score"),
            real("low", "lower end of its interval, by bootstrap over the rows"),
            real("high", "upper end of its interval"),
            ordinal("count", "rows it was computed over"),
            text("signature", "how exactly, in the reference tool's words"),
        ],
    },
    Dataset {
        name: "comparisons",
        version: 1,
        doc: "Two models on the same rows of a benchmark, each pair once.",
        sort_key: &["benchmark", "decoding", "metric", "model", "other"],
        volatile: false,
        columns: &[
            BENCHMARK,
            MODEL,
            text("other", "the model that it is compared with"),
            text("task", "generation or search"),
            text("decoding", "greedy, beam or exact"),
            text("metric", "name of the metric"),
            real("difference", "score of the model less that of the other"),
            real("low", "lower end of the difference's interval, by bootstrap over pairs of rows"),
            real("high", "upper end of the difference's interval"),
            real("p_value", "two-sided, by exchanging what the two made of a row at random"),
            ordinal("count", "rows that both have"),
            text("signature", "how interval and test are made"),
        ],
    },
    Dataset {
        name: "predictions",
        version: 2,
        doc: "What a generator wrote for each row of a benchmark.",
        sort_key: &["benchmark", "model", "decoding", "ordinal"],
        volatile: false,
        columns: &[
            BENCHMARK,
            MODEL,
            PROTOCOL,
            text("decoding", "greedy or beam"),
            ordinal("ordinal", "position of the example"),
            ID,
            text("source", "what the model read"),
            text("reference", "what was to be written"),
            text("prediction", "what it wrote"),
            real("log_probability", "sum over the written tokens, nats"),
            count("source_length", "source tokens"),
            ordinal("tokens_right", "reference tokens that come first when the right ones before them are given"),
            ordinal("tokens", "reference tokens, the end counted"),
            real("attention_entropy", "nats, mean over the written tokens, where there is attention").or_null(),
            ordinal("tokens_written", "written tokens, the end counted"),
            text("signature", "how it was decoded"),
        ],
    },
    Dataset {
        name: "rankings",
        version: 2,
        doc: "The best candidates for each query, and the rank of the right one.",
        sort_key: &["benchmark", "model", "ordinal", "rank"],
        volatile: false,
        columns: &[
            BENCHMARK,
            MODEL,
            PROTOCOL,
            ordinal("ordinal", "position of the query's example"),
            text("query_id", "the example whose text is the query"),
            count("rank", "from 1; candidates that tie with the right one stand before it"),
            text("candidate_id", "the example whose code is the candidate"),
            real("score", "similarity"),
            column("relevant", Kind::Boolean, "the candidate is the query's own code"),
            ordinal("candidates", "candidates that were ranked"),
        ],
    },
    Dataset {
        name: "attention",
        version: 2,
        doc: "Attention weights of a few greedy predictions.",
        sort_key: &["benchmark", "model", "ordinal", "target_position", "source_position"],
        volatile: false,
        columns: &[
            BENCHMARK,
            MODEL,
            ordinal("ordinal", "position of the example"),
            ID,
            count("target_position", "from 0"),
            text("target_token", "token written"),
            count("source_position", "from 0"),
            text("source_token", "token read"),
            real("weight", "attention weight; they sum to 1 over the source"),
        ],
    },
];
