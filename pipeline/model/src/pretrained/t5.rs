//! T5's `config.json` and the names of its tensors, as transformers has them.

use super::{BTreeMap, Folder, Half, Result, Value, config_error};
use crate::T5Config;

/// Names of older files for what is elsewhere, or means nothing.
const ALIASES: [&str; 4] = [
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "lm_head.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
];

/// The sizes that a folder's config says, which are those of the halves that are read of it.
pub(super) fn config(folder: &Folder, halves: &[Half]) -> Result<T5Config> {
    let plain = T5Config::default();
    let place = folder.place.join("config.json");
    let shapes = folder.shapes()?;
    let flag = |key: &str| folder.config[key].as_bool();
    let gated = match &folder.config["feed_forward_proj"] {
        Value::Null => false,
        Value::String(kind) if kind == "relu" => false,
        Value::String(kind) if kind == "gated-gelu" => true,
        other => {
            let display = place.display();
            return Err(config_error(format!("{display}: feed_forward_proj = {other}; relu and gated-gelu are known")));
        }
    };
    // Until transformers 5 one key said both.
    let tied_as_said = flag("tie_word_embeddings").unwrap_or(true);
    let scaled = flag("scale_decoder_outputs");
    let tied = match scaled {
        None => tied_as_said,
        Some(_) => !shapes.contains_key("lm_head.weight"),
    };
    let encoder_layers = folder.number("num_layers")?;
    let config = T5Config {
        width: folder.number("d_model")?,
        heads: folder.number("num_heads")?,
        head_width: folder.number("d_kv")?,
        encoder_layers,
        decoder_layers: folder.number_or("num_decoder_layers", Some(encoder_layers))?,
        feed_forward: folder.number("d_ff")?,
        gated,
        tied,
        scaled: scaled.unwrap_or(tied_as_said),
        buckets: folder.number_or("relative_attention_num_buckets", Some(plain.buckets))?,
        farthest: folder.number_or("relative_attention_max_distance", Some(plain.farthest))?,
        epsilon: folder.float_or("layer_norm_epsilon", plain.epsilon)?,
        dropout: folder.float_or("dropout_rate", plain.dropout)?,
    };
    config.check().map_err(|why| config_error(format!("{}: {why}", place.display())))?;
    for half in halves {
        let expected = expected(&config, *half, folder.vocabulary()?);
        check_shapes(&expected, &shapes).map_err(|why| config_error(format!("{}: {why}", place.display())))?;
    }
    Ok(config)
}

/// Tensors that tell whether all sizes are those of the weights.
fn expected(config: &T5Config, half: Half, vocabulary: usize) -> Vec<(String, [usize; 2])> {
    let (name, layers, last) = match half {
        Half::Encoder => ("encoder", config.encoder_layers, 1),
        Half::Decoder => ("decoder", config.decoder_layers, 2),
    };
    let inner = config.heads.saturating_mul(config.head_width);
    let layer = format!("{name}.block.{}.layer", layers - 1);
    let first = if config.gated { "wi_0" } else { "wi" };
    vec![
        ("shared.weight".to_owned(), [vocabulary, config.width]),
        (
            format!("{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
            [config.buckets, config.heads],
        ),
        (format!("{layer}.0.SelfAttention.q.weight"), [inner, config.width]),
        (format!("{layer}.{last}.DenseReluDense.{first}.weight"), [config.feed_forward, config.width]),
    ]
}

fn check_shapes(
    expected: &[(String, [usize; 2])],
    shapes: &BTreeMap<String, Vec<usize>>,
) -> std::result::Result<(), String> {
    for (name, wanted) in expected {
        let Some(shape) = aliases(name).find_map(|name| shapes.get(name)) else {
            return Err(format!("the tensor {name} is missing"));
        };
        if shape != wanted {
            return Err(format!("the tensor {name} has the shape {shape:?}, and the model's is {wanted:?}"));
        }
    }
    Ok(())
}

/// The name there of a parameter of ours, and the half of the model that it is in; nothing where it has none there. `gated` says of
/// a half whether its feed-forward parts are.
pub(super) fn name(ours: &str, gated: &dyn Fn(&str) -> bool) -> Option<(Half, String)> {
    let (first, rest) = ours.split_once('.')?;
    let half = match first {
        "embedding" | "source_embedding" => return Some((Half::Encoder, "shared.weight".to_owned())),
        "target_embedding" => return Some((Half::Decoder, "shared.weight".to_owned())),
        "output" => return Some((Half::Decoder, "lm_head.weight".to_owned())),
        "encoder" => Half::Encoder,
        "decoder" => Half::Decoder,
        _ => return None,
    };
    let theirs = match rest {
        "relative.scores.weight" => "block.0.layer.0.SelfAttention.relative_attention_bias.weight".to_owned(),
        "norm.gamma" => "final_layer_norm.weight".to_owned(),
        rest => {
            let (layer, part) = rest.strip_prefix("layers.")?.split_once('.')?;
            format!("block.{layer}.layer.{}", in_layer(part, half, gated(first))?)
        }
    };
    Some((half, format!("{first}.{theirs}")))
}

/// The name of a parameter within its layer.
fn in_layer(part: &str, half: Half, gated: bool) -> Option<String> {
    let last = if half == Half::Encoder { 1 } else { 2 };
    let (place, rest) = part.split_once('.')?;
    Some(match (place, rest) {
        ("attention_norm", _) => "0.layer_norm.weight".to_owned(),
        ("cross_norm", _) => "1.layer_norm.weight".to_owned(),
        ("feed_forward_norm", _) => format!("{last}.layer_norm.weight"),
        // The first letter says which of the four maps it is.
        ("attention", map) => format!("0.SelfAttention.{}.weight", &map[..1]),
        ("cross", map) => format!("1.EncDecAttention.{}.weight", &map[..1]),
        ("feed_forward", "inner.weight") if gated => format!("{last}.DenseReluDense.wi_0.weight"),
        ("feed_forward", "inner.weight") => format!("{last}.DenseReluDense.wi.weight"),
        ("feed_forward", "gate.weight") => format!("{last}.DenseReluDense.wi_1.weight"),
        ("feed_forward", "outer.weight") => format!("{last}.DenseReluDense.wo.weight"),
        _ => return None,
    })
}

/// A name, and those that may stand for it.
pub(super) fn aliases(name: &str) -> impl Iterator<Item = &str> {
    let others: &[&str] = if name == "shared.weight" { &ALIASES[..2] } else { &[] };
    std::iter::once(name).chain(others.iter().copied())
}

/// Whether a tensor that was not used is another's double.
pub(super) fn is_alias(name: &str) -> bool {
    ALIASES.contains(&name)
}
