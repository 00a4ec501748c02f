//! The most probable token each time.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;

use super::{Decoded, Decoding, floats, ids};
use crate::batch::Tokens;
use crate::generators::{Generate, Step};

pub(super) fn greedy<B: Backend, G: Generate<B>>(model: &G, source: &Tokens<B>, decoding: Decoding) -> Vec<Decoded> {
    let Decoding { special, length } = decoding;
    let device = source.ids.device();
    let mut state = model.begin(source);
    let mut decoded = vec![Decoded::default(); source.rows()];
    let mut done = vec![false; source.rows()];
    let mut tokens = vec![special.begin; source.rows()];
    for _ in 0..length {
        let Step { logits, attention, state: next } = model.step(ids(&tokens, &device), state);
        state = next;
        let log_probabilities = log_softmax(logits, 1);
        let best = log_probabilities.clone().argmax(1);
        let scores = floats(log_probabilities.gather(1, best.clone()).into_data());
        let best: Vec<i64> = best.into_data().iter::<i64>().collect();
        let weights = attention.map(|weights| floats(weights.into_data()));
        for (row, decoded) in decoded.iter_mut().enumerate().filter(|(row, _)| !done[*row]) {
            tokens[row] = best[row] as u32;
            decoded.written += 1;
            decoded.log_probability += f64::from(scores[row]);
            if let Some(weights) = &weights {
                let from = row * source.width();
                decoded.attention.push(weights[from..from + source.lengths[row]].to_vec());
            }
            if tokens[row] != special.end {
                decoded.tokens.push(tokens[row]);
            }
        }
        done.iter_mut().zip(&tokens).for_each(|(done, token)| *done |= *token == special.end);
        if done.iter().all(|done| *done) {
            break;
        }
    }
    decoded
}
